"""A packed model answers as the Segmenter it was packed from, and refuses in one line."""

import ast
import base64
import io
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from alto_models.altollm.api import Segmenter
from jobs.runner.import_closure import imported_files
from jobs.serving.package import (
    ALTOLLM_CHECKPOINT,
    CODE,
    REQUIREMENTS,
    TOKENIZER_CHECKPOINT,
    checkpoint_in,
)
from tests.alto_models.altollm.tiny import picture
from tests.jobs.serving.packed_example import PackedExample, packed_example

ROOT = Path(__file__).resolve().parents[3]
EXPRESSIONS = ["the red star", "blue"]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> PackedExample:
    return packed_example(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def served(example: PackedExample) -> Any:
    import mlflow

    before = list(sys.path)
    yield mlflow.pyfunc.load_model(str(example.packed))
    sys.path[:] = before  # MLflow puts the packed code there


def png(seed: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture(seed, 40, 56)).save(data, "PNG")
    return data.getvalue()


def request(images: list[bytes], expressions: list[str] = EXPRESSIONS) -> pd.DataFrame:
    return pd.DataFrame({"image": images, "expressions": [expressions] * len(images)})


def test_answers_as_the_segmenter_does(served: Any, example: PackedExample) -> None:
    segmenter = Segmenter.from_folders(example.altollm, example.tokenizer)
    params = {"full_length": True, "max_tokens": 3}
    answers = served.predict(request([png(0), png(1)]), params=params)
    for seed, answer in enumerate(answers):
        expected = segmenter.segment(picture(seed, 40, 56), EXPRESSIONS, adaptive=False, max_tokens=3)
        for said, one in zip(answer["segmentations"], expected, strict=True):
            image = base64.b64decode(said.pop("png"))
            assert said == one.model_dump(mode="json")
            with Image.open(io.BytesIO(image)) as mask:
                assert np.array_equal(np.asarray(mask), one.mask * np.uint8(255))


def test_the_package_holds_both_checkpoints_and_no_pickle(example: PackedExample) -> None:
    packed = example.packed
    for name, source in (
        (ALTOLLM_CHECKPOINT, example.altollm),
        (TOKENIZER_CHECKPOINT, example.tokenizer),
    ):
        kept = checkpoint_in(packed, name)
        assert {path.name: path.read_bytes() for path in kept.iterdir()} == {
            path.name: path.read_bytes() for path in source.iterdir()
        }
    kinds = {path.suffix for path in packed.rglob("*") if path.is_file()}
    assert not kinds & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc"}


def test_the_package_holds_the_code_and_names_the_requirements_of_what_it_serves() -> None:
    waiting, found = [Path("jobs/serving/segmenter.py")], set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += imported_files(ROOT, file)
    assert {file.parts[0] for file in found} - {"jobs"} == set(CODE)
    assert {file for file in found if file.parts[0] == "jobs"} == {Path("jobs/serving/segmenter.py")}
    names = set()
    for file in found:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    distributions = packages_distributions()
    needed = {name.lower() for module in names - set(CODE) for name in distributions.get(module, [])}
    # One distribution may be split in parts that carry the same module.
    assert needed - {"mlflow-skinny", "mlflow-tracing"} <= set(REQUIREMENTS)


@pytest.mark.parametrize(
    ("frame", "params", "line"),
    [
        (request([png(0), b"no image"]), {}, "row 2: the image: not a whole JPEG or PNG file"),
        (request([png(0)[:-30]]), {}, "row 1: the image: not a whole JPEG or PNG file"),
        (request([png(0)], []), {}, "row 1: an image takes 1 to 64 expressions, got 0"),
        (request([png(0)], [" "]), {}, "row 1: expression 1 is empty"),
        (request([png(0)], ["x" * 501]), {}, "row 1: expression 1 has 501 characters, more than 500"),
        (request([png(0)]), {"max_tokens": 0}, "row 1: max_tokens is at least 1, got 0"),
        (request([png(0)] * 17), {}, "17 images in one request, at most 16"),
    ],
)
def test_wrong_requests_are_the_callers_fault(
    served: Any, frame: pd.DataFrame, params: dict[str, Any], line: str
) -> None:
    with pytest.raises(MlflowException) as refused:
        served.predict(frame, params=params)
    assert refused.value.get_http_status_code() == 400
    assert line in refused.value.message
    assert "\n" not in refused.value.message
