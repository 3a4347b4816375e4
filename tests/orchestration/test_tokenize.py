"""`alto tokenize` and `alto detokenize` as people use them, with an untrained tiny model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alto_models.checkpoint import save_checkpoint
from alto_models.tokenizer.model import MaskTokenizer
from tests.alto_models.tokenizer.tiny import TINY
from tests.orchestration.conftest import Alto, assert_refused, make_project

HEIGHT, WIDTH = 45, 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`model`, the masks 0.png … 2.png, their image photo.png, and other.png of another size."""
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "model", TINY, MaskTokenizer(TINY).state_dict())
    rng = np.random.default_rng(0)
    for number in range(3):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[5 + 4 * number : 30, 3 : 10 + 6 * number] = 255
        Image.fromarray(mask).save(tmp_path / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "photo.png")
    Image.fromarray(rng.integers(0, 256, (WIDTH, HEIGHT, 3), np.uint8)).save(tmp_path / "other.png")
    return tmp_path


def test_there_and_back(alto: Alto, folder: Path) -> None:
    masks = [f"{number}.png" for number in range(3)]
    printed = alto("tokenize", *masks, "--image", "photo.png", "--model", "model")
    for mask, line in zip(masks, printed.lines, strict=True):
        assert (line["mask"], line["image"]) == (mask, "photo.png")
        assert (line["height"], line["width"]) == (HEIGHT, WIDTH)
        assert 1 <= line["length"] == len(line["codes"]) <= TINY.max_length
        assert line["iou"] is None
    written = alto("detokenize", "--out", "out", "--model", "model", stdin=printed.stdout).lines
    assert [line["file"] for line in written] == ["out/0001_0.png", "out/0002_1.png", "out/0003_2.png"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["0001_0.png", "0002_1.png", "0003_2.png"]
    for line in written:
        assert line["image"] == "photo.png"
        with Image.open(line["file"]) as png:
            assert (png.format, png.mode, png.size) == ("PNG", "L", (WIDTH, HEIGHT))
            assert set(np.unique(np.asarray(png))) <= {0, 255}


def test_without_an_image_the_output_says_so(alto: Alto, folder: Path) -> None:
    printed = alto("tokenize", "0.png", "--model", "model", "--quality", "0.01")
    assert printed.lines[0]["image"] is None
    assert printed.lines[0]["iou"] > 0
    (folder / "lines.jsonl").write_text(printed.stdout)
    (written,) = alto("detokenize", "--out", "out", "--model", "model", "--file", "lines.jsonl").lines
    assert written == {"line": 1, "file": "out/0001_0.png", "image": None}


def test_the_same_input_gives_the_same_bytes(alto: Alto, folder: Path) -> None:
    command = ["tokenize", "0.png", "1.png", "--image", "photo.png", "--model", "model", "--quality", "0.9"]
    first, second = alto(*command), alto(*command)
    assert first.status == 0
    assert first.stdout == second.stdout
    for out in ("first", "second"):
        assert alto("detokenize", "--out", out, "--model", "model", stdin=first.stdout).status == 0
    assert (folder / "first/0002_1.png").read_bytes() == (folder / "second/0002_1.png").read_bytes()


def test_an_image_may_be_given_for_each_mask(alto: Alto, folder: Path) -> None:
    """In the order of the masks; the lines are those of each pair on its own."""
    shutil.copy(folder / "photo.png", folder / "a.png")
    Image.open(folder / "photo.png").rotate(180).save(folder / "b.png")
    wanted = ["--model", "model", "--quality", "1"]
    pairs = [("0.png", "b.png"), ("1.png", "a.png"), ("2.png", "b.png")]
    images = [option for _, image in pairs for option in ("--image", image)]
    together = alto("tokenize", *[mask for mask, _ in pairs], *images, *wanted).lines
    alone = [alto("tokenize", mask, "--image", image, *wanted).lines[0] for mask, image in pairs]
    assert together == alone


def test_masks_of_one_image_share_its_encoding(
    alto: Alto, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    original = MaskTokenizer.encode_image

    def counted(model: MaskTokenizer, images: torch.Tensor) -> torch.Tensor:
        encoded.append(len(images))
        return original(model, images)

    monkeypatch.setattr(MaskTokenizer, "encode_image", counted)
    masks = ["0.png", "1.png", "2.png"]
    printed = alto("tokenize", *masks, "--image", "photo.png", "--model", "model", "--quality", "1")
    assert printed.status == 0
    assert encoded == [1]
    assert alto("detokenize", "--out", "out", "--model", "model", stdin=printed.stdout).status == 0
    assert encoded == [1, 1]


def test_max_tokens_keeps_the_first_codes(alto: Alto, folder: Path) -> None:
    (full,) = alto("tokenize", "0.png", "--model", "model").lines
    (short,) = alto("tokenize", "0.png", "--model", "model", "--max-tokens", "2").lines
    assert full["length"] > 2
    assert short["codes"] == full["codes"][:2]
    assert short["length"] == 2


BAD_MASKS = {
    "empty.png": (Image.new("L", (WIDTH, HEIGHT)), "empty.png: the mask is empty"),
    "grey.png": (Image.linear_gradient("L"), "grey.png: the mask has grey levels from 0 to 255"),
    "wide.png": (Image.new("L", (50, 40), 255), "wide.png: the mask is 50 x 40 pixels, its image 30 x 45"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_one_bad_mask_and_nothing_is_printed(alto: Alto, folder: Path, name: str) -> None:
    image, line = BAD_MASKS[name]
    image.save(folder / name)
    result = alto("tokenize", "0.png", name, "1.png", "--image", "photo.png", "--model", "model")
    assert_refused(result, line, folder)


def test_grey_levels_are_thresholded_where_a_threshold_is_stated(alto: Alto, folder: Path) -> None:
    with Image.open(folder / "0.png") as mask:
        grey = np.where(np.asarray(mask) > 0, 200, 50).astype(np.uint8)
    grey[0, 0] = 0
    Image.fromarray(grey).save(folder / "grey.png")
    assert_refused(alto("tokenize", "grey.png", "--model", "model"), "state a threshold", folder)
    (stated,) = alto("tokenize", "grey.png", "--model", "model", "--quality", "1", "--threshold", "128").lines
    (binary,) = alto("tokenize", "0.png", "--model", "model", "--quality", "1").lines
    assert stated == binary | {"mask": "grey.png"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["none.png"], "none.png: no such file"),
        (["model/config.json"], "model/config.json: not a whole PNG file"),
        (["0.png", "--image", "none.jpg"], "none.jpg: no such file"),
        (["0.png", "--image", "other.png"], "0.png: the mask is 30 x 45 pixels, its image 45 x 30"),
        (["0.png", "--image", "model/model.safetensors"], "model.safetensors: not a whole JPEG or PNG file"),
        (
            ["0.png", "1.png", "2.png", "--image", "photo.png", "--image", "photo.png"],
            "2 images for 3 masks: give none, one, or one for each mask",
        ),
        (["0.png", "--quality", "1.5"], "quality is an IoU above 0 and up to 1, got 1.5"),
        (["0.png", "--quality", "0.5", "--max-tokens", "2"], "give quality or max_tokens, not both"),
        (["0.png", "--max-tokens", "0"], "max_tokens is at least 1, got 0"),
        (["0.png", "--threshold", "0"], "threshold is at least 1"),
    ],
)
def test_wrong_arguments_are_one_clear_line(
    alto: Alto, folder: Path, arguments: list[str], line: str
) -> None:
    assert_refused(alto("tokenize", *arguments, "--model", "model"), line, folder)


GOOD = {"codes": [1, 2], "length": 2, "height": 20, "width": 10}


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        ("{", "line 3: Invalid JSON"),
        ("[1, 2]", "line 3: Input should be"),
        ("\x00", "line 3: Invalid JSON"),
        (GOOD | {"codes": [1, 99]}, "line 3: code 99 is not in the model's codebook, 0 to 31"),
        (GOOD | {"codes": [1, -1]}, "line 3: code -1 is not in the model's codebook"),
        (GOOD | {"codes": [1, "2"]}, "line 3: codes: Input should be a valid integer"),
        (GOOD | {"codes": [], "length": 0}, "line 3: codes: Tuple should have at least 1 item"),
        (GOOD | {"codes": [1] * 9, "length": 9}, "line 3: 9 codes, but the model has at most 6 a mask"),
        (GOOD | {"length": 5}, "line 3: Value error, length is 5, but there are 2 codes"),
        (GOOD | {"height": 0}, "line 3: height: Input should be greater than 0"),
        (GOOD | {"width": 10**9}, "line 3: width: Input should be less than or equal to 8192"),
        ({"codes": [1], "height": 4}, "line 3: width: Field required"),
        (GOOD | {"image": "none.jpg"}, "line 3: none.jpg: no such file"),
        (GOOD | {"image": "photo.png"}, "line 3: the mask is 10 x 20 pixels, its image 30 x 45"),
        (GOOD | {"image": "a\x00b"}, "no such file"),
        (GOOD | {"image": "x" * 5000}, "no such file"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(alto: Alto, folder: Path, bad: object, line: str) -> None:
    text = bad if isinstance(bad, str) else json.dumps(bad)
    stdin = f"{json.dumps(GOOD)}\n\n{text}\n{json.dumps(GOOD)}\n"
    assert_refused(alto("detokenize", "--out", "out", "--model", "model", stdin=stdin), line, folder)


def test_lines_may_lack_what_is_not_needed_and_have_more(alto: Alto, folder: Path) -> None:
    line = json.dumps({"codes": [3], "height": 7, "width": 9, "score": 0.5})
    (written,) = alto("detokenize", "--out", "out", "--model", "model", stdin=line).lines
    with Image.open(written["file"]) as png:
        assert png.size == (9, 7)


def test_a_given_image_replaces_that_of_the_lines(alto: Alto, folder: Path) -> None:
    line = json.dumps(GOOD | {"height": HEIGHT, "width": WIDTH, "image": "moved.jpg"})
    command = ["detokenize", "--out", "out", "--model", "model", "--image", "photo.png"]
    (written,) = alto(*command, stdin=line).lines
    assert written["image"] == "photo.png"


@pytest.mark.parametrize("mask", ["../../up.png", "/etc/passwd", "..", "a/b\x00c", "ü" * 400, ""])
def test_names_in_lines_never_lead_out_of_the_folder(alto: Alto, folder: Path, mask: str) -> None:
    line = json.dumps(GOOD | {"mask": mask})
    (written,) = alto("detokenize", "--out", "out", "--model", "model", stdin=line).lines
    assert [path.name for path in Path("out").iterdir()] == [Path(written["file"]).name]


def test_masks_of_equal_names_do_not_replace_each_other(alto: Alto, folder: Path) -> None:
    lines = "\n".join(json.dumps(GOOD | {"mask": f"{name}/mask.png"}) for name in "ab")
    written = alto("detokenize", "--out", "out", "--model", "model", stdin=lines).lines
    assert [line["file"] for line in written] == ["out/0001_mask.png", "out/0002_mask.png"]


def test_wrong_places_are_one_clear_line(alto: Alto, folder: Path) -> None:
    missing = alto("detokenize", "--out", "out", "--model", "model", "--file", "none.jsonl")
    assert_refused(missing, "none.jsonl: cannot be read (No such file or directory)", folder)
    nothing = alto("detokenize", "--out", "out", "--model", "model")
    assert_refused(nothing, "standard input: no line of codes", folder)
    taken = alto("detokenize", "--out", "0.png", "--model", "model", stdin=json.dumps(GOOD))
    assert_refused(taken, "0.png: not a folder", folder)


def test_unknown_models_are_one_clear_line(alto: Alto, folder: Path) -> None:
    assert_refused(alto("tokenize", "0.png", "--model", "nowhere"), "nowhere: no checkpoint here", folder)
    assert_refused(alto("tokenize", "0.png"), "no dvc.yaml", folder)
    make_project(folder)
    assert_refused(
        alto("tokenize", "0.png"), "no trained tokenizer: run `dvc repro tokenizer_stage1_5` first", folder
    )
    assert_refused(
        alto("tokenize", "0.png", "--model", "models:/alto-tokenizer/3"), "nothing is registered yet", folder
    )


def test_the_current_profiles_tokenizer_is_the_default(alto: Alto, folder: Path) -> None:
    make_project(folder)
    shutil.copytree(folder / "model", folder / "models/small/tokenizer_stage1_5")
    by_default = alto("tokenize", "0.png")
    assert by_default.lines == alto("tokenize", "0.png", "--model", "model").lines
    assert by_default.stderr == f"model: {folder / 'models/small/tokenizer_stage1_5'}\n"


@pytest.mark.slow
def test_the_champion_goes_before_the_newest_version(
    alto: Alto, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three registered versions: 3 is the newest; 2 is the default once it is the champion."""
    make_project(folder)
    store = folder / ".work" / "mlflow"
    store.mkdir(parents=True)
    uri = f"sqlite:///{store / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    from mlflow import MlflowClient

    client = MlflowClient()
    client.create_registered_model("alto-tokenizer")
    expected = {}
    for version in (1, 2, 3):
        torch.manual_seed(version)
        save_checkpoint(folder / f"v{version}", TINY, MaskTokenizer(TINY).state_dict())
        client.create_model_version(
            "alto-tokenizer", source=(folder / f"v{version}").as_uri(), tags={"stage": "tokenizer_stage1_5"}
        )
        expected[version] = alto("tokenize", "0.png", "--model", f"v{version}").lines
    assert len({json.dumps(lines) for lines in expected.values()}) == 3
    assert alto("tokenize", "0.png").lines == expected[3]
    client.set_registered_model_alias("alto-tokenizer", "champion", "2")
    assert alto("tokenize", "0.png").lines == expected[2]
    named = ["models:/alto-tokenizer/1", "models:/alto-tokenizer@champion", "models:/alto-tokenizer/3"]
    found = [alto("tokenize", "0.png", "--model", name).lines for name in named]
    assert found == [expected[1], expected[2], expected[3]]
    for name in (
        "models:/alto-tokenizer/9",
        "models:/alto-tokenizer@nobody",
        "models:/nothing/1",
        "models:/",
    ):
        unknown = alto("tokenize", "0.png", "--model", name)
        assert_refused(unknown, f"{name}: cannot be had from the model registry", folder)
