"""`alto segment` as people use it, with an untrained tiny model that answers in form."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

from alto_models.checkpoint import save_checkpoint
from alto_models.tokenizer.model import MaskTokenizer
from tests.alto_models.altollm.scripted import ScriptedLLM
from tests.alto_models.altollm.tiny import CODES, picture, untrained
from tests.alto_models.tokenizer.tiny import TINY
from tests.orchestration.conftest import Alto, assert_refused, make_project

SIZES = {"a/photo.png": (40, 56), "b/photo.png": (30, 20)}  # height, width
MODEL = ["--model", "models/small/altollm_grpo"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`models/small` as the stages leave it, and `other`, a tokenizer of another codebook."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    untrained().save(folder / "models/small/altollm_grpo")
    same = TINY.model_copy(update={"codebook_size": CODES})
    for name, config in (("models/small/tokenizer_stage1_5", same), ("other", TINY)):
        save_checkpoint(folder / name, config, MaskTokenizer(config).state_dict())
    return folder


@pytest.fixture
def folder(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("alto_models.altollm.api.AltoLLM", ScriptedLLM)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    for seed, (name, size) in enumerate(SIZES.items()):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(picture(seed, *size)).save(tmp_path / name)
    return tmp_path


def test_masks_overlays_and_lines_of_every_image_and_expression(alto: Alto, folder: Path) -> None:
    texts = ["the red star", "blue", "../../ring"]
    refs = [option for text in texts for option in ("--ref", text)]
    printed = alto("segment", *SIZES, *refs, *MODEL, "--out", "out")
    lines = printed.lines
    assert [(line["image"], line["expression"]) for line in lines] == [(i, t) for i in SIZES for t in texts]
    assert (folder / "out/segments.jsonl").read_text() == printed.stdout
    files = [line[kind] for line in lines for kind in ("mask_file", "overlay_file")]
    assert files[:2] == ["0001_photo_01.png", "0001_photo_01_overlay.jpg"]
    assert sorted(path.name for path in Path("out").iterdir()) == sorted([*files, "segments.jsonl"])
    for line in lines:
        height, width = SIZES[line["image"]]
        with Image.open(Path("out", line["mask_file"])) as png:
            mask = np.asarray(png)
            assert (png.format, png.mode) == ("PNG", "L")
        assert np.array_equal(coco.decode(line["rle"]) * 255, mask)
        assert mask.shape == (height, width)
        with Image.open(Path("out", line["overlay_file"])) as overlay:
            assert (overlay.format, overlay.size) == ("JPEG", (width, height))
        assert line["length"] == len(line["codes"])
        assert 0 <= line["score"] <= 1
    assert [line["no_target"] for line in lines] == [False, True, False] * 2
    assert [line["malformed"] for line in lines] == [False, False, True] * 2
    assert [bool(line["codes"]) for line in lines] == [True, False, False] * 2


def test_the_same_input_gives_the_same_bytes(alto: Alto, folder: Path) -> None:
    for out in ("first", "second"):
        assert alto("segment", "a/photo.png", "--ref", "star", *MODEL, "--out", out).status == 0
    first, second = (
        {path.name: path.read_bytes() for path in Path(out).iterdir()} for out in ("first", "second")
    )
    assert first == second


def test_at_most_so_many_codes(alto: Alto, folder: Path) -> None:
    command = ["segment", "a/photo.png", "--ref", "star", *MODEL, "--max-tokens", "1", "--out", "out"]
    assert [line["length"] for line in alto(*command).lines] == [1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["none.png"], "none.png: no such file"),
        (["a/photo.png", "other/config.json"], "other/config.json: not a whole JPEG or PNG file"),
        (["a/photo.png", "--ref", " "], "expression 2 is empty"),
        (["a/photo.png", "--ref", "x" * 501], "expression 2 has 501 characters, more than 500"),
        (["a/photo.png", "--max-tokens", "0"], "max_tokens is at least 1, got 0"),
        (
            ["a/photo.png", "--max-tokens", "2", "--full-length"],
            "give --full-length or --max-tokens, not both",
        ),
        (["a/photo.png", "--tokenizer", "other"], "knows 8 mask tokens, the mask tokenizer has 32 codes"),
        (["a/photo.png", "--tokenizer", "nowhere"], "nowhere: no checkpoint here"),
        (["a/photo.png", "--model", "nowhere"], "nowhere: no such folder"),
        (["a/photo.png", "--model", "other"], "other: no mask tokenizer beside it"),
        (["a/photo.png", "--model", "models/small/tokenizer_stage1_5"], "not an InternVL checkpoint"),
        (["a/photo.png", "--model", "models:/altollm/3"], "no dvc.yaml"),
    ],
)
def test_wrong_input_is_one_clear_line_and_leaves_nothing(
    alto: Alto, folder: Path, arguments: list[str], line: str
) -> None:
    before = sorted(folder.iterdir())
    result = alto("segment", "--ref", "star", *MODEL, "--out", "out", *arguments)
    assert_refused(result, line, folder)
    assert sorted(folder.iterdir()) == before


def test_a_huge_image_is_refused(alto: Alto, folder: Path) -> None:
    Image.new("1", (8000, 8000)).save(folder / "huge.png")
    result = alto("segment", "huge.png", "--ref", "star", *MODEL, "--out", "out")
    assert_refused(result, "huge.png: the image has 8000 x 8000 pixels, more than 50,000,000", folder)


def test_an_existing_folder_is_left_alone(alto: Alto, folder: Path) -> None:
    result = alto("segment", "a/photo.png", "--ref", "star", *MODEL, "--out", "a")
    assert_refused(result, "a: exists already; give --out a new folder", folder)
    assert [path.name for path in Path("a").iterdir()] == ["photo.png"]


def test_the_current_profiles_model_is_the_default(alto: Alto, folder: Path) -> None:
    make_project(folder)
    command = ["segment", "a/photo.png", "--ref", "star"]
    by_default = alto(*command, "--out", "out")
    assert by_default.lines == alto(*command, *MODEL, "--out", "again").lines
    assert by_default.stderr == f"model: {folder / 'models/small/altollm_grpo'}\n"


@pytest.mark.slow
def test_a_registered_version_comes_with_its_own_tokenizer(
    alto: Alto, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokenizer 2 is newer, yet version 1 of ALToLLM was trained with 1. Champion goes before newest."""
    make_project(folder)
    store = folder / ".work" / "mlflow"
    store.mkdir(parents=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store / 'mlflow.db'}")
    from mlflow import MlflowClient

    client = MlflowClient()
    small = folder / "models/small"
    for name in ("alto-tokenizer", "altollm"):
        client.create_registered_model(name)
    for data_version, source in (("right", small / "tokenizer_stage1_5"), ("wrong", folder / "other")):
        client.create_model_version("alto-tokenizer", source.as_uri(), tags={"data_version": data_version})
    for trained_with in ("right", "wrong", "nothing known"):
        tags = {"stage": "altollm_grpo", "tokenizer_data_version": trained_with}
        client.create_model_version("altollm", (small / "altollm_grpo").as_uri(), tags=tags)
    command = ["segment", "a/photo.png", "--ref", "star"]
    expected = alto(*command, *MODEL, "--out", "expected").lines
    assert alto(*command, "--model", "models:/altollm/1", "--out", "one").lines == expected
    for model, line in (
        ("models:/altollm/2", "the mask tokenizer has 32 codes"),
        ("models:/altollm/3", "models:/altollm/3: no registered mask tokenizer belongs to it"),
        ("models:/alto-tokenizer/1", "models:/alto-tokenizer/1: no registered mask tokenizer belongs to it"),
        ("models:/altollm/9", "models:/altollm/9: cannot be had from the model registry"),
    ):
        assert_refused(alto(*command, "--model", model, "--out", "out"), line, folder)
    client.set_registered_model_alias("altollm", "champion", "1")
    champion = alto(*command, "--out", "champion")
    assert champion.lines == expected
    assert champion.stderr == "model: models:/altollm@champion\n"
    assert json.loads((folder / "champion/segments.jsonl").read_text())["expression"] == "star"
