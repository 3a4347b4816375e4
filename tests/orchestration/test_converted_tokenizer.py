"""A converted published tokenizer, used, measured and registered like a trained one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from alto_models.checkpoint import save_checkpoint
from alto_models.published.convert_tokenizer import convert_tokenizer
from alto_models.tokenizer.any_tokenizer import load_any_tokenizer
from alto_models.tokenizer.api import TrainedTokenizer
from alto_models.tokenizer.model import MaskTokenizer
from data_contracts.errors import InputError
from tests.alto_models.published import test_published_tokenizer as published
from tests.alto_models.tokenizer.tiny import TINY
from tests.jobs.tokenizer_example import parameters, write_prepared_masks
from tests.orchestration.conftest import Alto, assert_refused, make_project

HEIGHT, WIDTH = 45, 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`converted`, a mask, its image, and a project."""
    torch.save(published.published_tensors(), tmp_path / "alto.pth")
    convert_tokenizer(tmp_path / "alto.pth", tmp_path / "converted")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:30, 3:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    photo = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    make_project(tmp_path)
    return tmp_path


def test_there_and_back(alto: Alto, folder: Path) -> None:
    """The printed codes are the network's, and so is the mask drawn from them."""
    model = ["--model", "converted"]
    for wanted in ([], ["--quality", "1"]):
        printed = alto("tokenize", "mask.png", "--image", "photo.png", *model, *wanted)
        (line,) = printed.lines
        assert 1 <= line["length"] == len(line["codes"]) <= published.TINY.max_length
        shutil.rmtree("out", ignore_errors=True)
        (written,) = alto("detokenize", "--out", "out", *model, stdin=printed.stdout).lines
        with Image.open(written["file"]) as png:
            decoded = np.asarray(png) > 0
    with Image.open("mask.png") as mask:
        target = np.asarray(mask) > 0
    assert line["length"] == published.TINY.max_length
    assert line["iou"] == pytest.approx((decoded & target).sum() / (decoded | target).sum(), abs=1e-6)


def test_a_missing_image_is_refused_where_one_is_needed(alto: Alto, folder: Path) -> None:
    text = "this tokenizer is a published one, which cannot decode without an image"
    assert_refused(alto("tokenize", "mask.png", "--model", "converted", "--quality", "0.5"), text, folder)
    printed = alto("tokenize", "mask.png", "--model", "converted")
    assert printed.lines[0]["image"] is None
    refused = alto("detokenize", "--out", "out", "--model", "converted", stdin=printed.stdout)
    assert_refused(refused, f"line 1: {text}", folder)


def test_the_folder_says_which_network_it_holds(folder: Path) -> None:
    save_checkpoint(folder / "trained", TINY, MaskTokenizer(TINY).state_dict())
    assert load_any_tokenizer(folder / "trained").config == TINY
    assert load_any_tokenizer(folder / "converted").config == published.TINY
    assert TrainedTokenizer.from_folder(folder / "converted").model.config.mask_size == 32
    config = folder / "converted" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"kind": "unknown"}))
    with pytest.raises(InputError, match="config.json: kind: Input should be 'published_alto'"):
        load_any_tokenizer(folder / "converted")


class TestBenchmark:
    @pytest.fixture(autouse=True)
    def _held_out_masks(self, folder: Path) -> None:
        write_prepared_masks(folder / "data/tiny/prepare_sa1b")
        section = parameters("tokenizer_benchmark")
        (folder / "params.yaml").write_text(
            yaml.safe_dump({"profile": "tiny", "seed": 1, "tokenizer_benchmark": section})
        )

    def test_same_figures_as_the_stage_has(self, alto: Alto, folder: Path) -> None:
        done = alto("benchmark", "tokenizer", "--model", "converted", "--out", "measured/one")
        assert done.status == 0, done.stderr
        metrics = json.loads((folder / "measured/one/metrics.json").read_text())
        samples = pq.read_table(folder / "measured/one/samples.parquet").to_pydict()
        assert set(metrics["baselines"]) == {"mean_mask", "all_zero", "all_one"}
        assert [point["length"] for point in metrics["by_length"]] == list(range(1, 9))
        assert metrics["by_length"][0]["bits"] == 4  # of a codebook of 16
        assert metrics["iou"] == pytest.approx(np.mean(samples["iou"]))
        for ious, length, iou in zip(
            samples["iou_by_length"], samples["length"], samples["iou"], strict=True
        ):
            assert ious[length - 1] == pytest.approx(iou, abs=1e-3)
        assert f"iou                      {metrics['iou']:.4f}".rstrip("0") in done.stdout
        assert [path.name for path in (folder / "measured").iterdir()] == ["one"]
        assert (folder / "measured/one/pictures/samples.png").is_file()

    def test_trained_tokenizers_and_fewer_images(self, alto: Alto, folder: Path) -> None:
        save_checkpoint(folder / "trained", TINY, MaskTokenizer(TINY).state_dict())
        measure = ["benchmark", "tokenizer", "--model", "trained"]
        assert alto(*measure, "--out", "out", "--images", "1").status == 0
        metrics = json.loads((folder / "out/metrics.json").read_text())
        assert metrics["images"] == 1
        assert "untrained" in metrics["baselines"]
        taken = alto(*measure, "--out", "out")
        assert (taken.status, taken.stderr) == (2, "error: out: exists already; give --out a new folder\n")

    def test_masks_must_have_been_prepared(self, alto: Alto, folder: Path) -> None:
        shutil.rmtree(folder / "data")
        refused = alto("benchmark", "tokenizer", "--model", "converted", "--out", "out")
        assert_refused(refused, "no held-out masks; run `dvc repro prepare_sa1b` first", folder)


@pytest.mark.slow
def test_registered_once_named_by_uri_and_never_the_default(
    alto: Alto, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".work/mlflow").mkdir(parents=True)
    uri = f"sqlite:///{folder / '.work/mlflow/mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    register = ["register", "tokenizer", "converted", "--licence", "Apache-2.0"]
    by_folder = alto("tokenize", "mask.png", "--model", "converted").lines
    assert alto(*register).stdout == "models:/alto-tokenizer/1 (registered)\n"
    assert alto(*register).stdout == "models:/alto-tokenizer/1 (already registered)\n"
    shutil.copytree("converted", "moved")
    again = alto("register", "tokenizer", "moved", "--licence", "Apache-2.0")
    assert again.stdout == "models:/alto-tokenizer/1 (already registered)\n"
    assert alto("tokenize", "mask.png", "--model", "models:/alto-tokenizer/1").lines == by_folder
    assert_refused(alto("tokenize", "mask.png"), "no trained tokenizer", folder)

    from mlflow import MlflowClient

    client = MlflowClient(uri)
    assert client.get_registered_model("alto-tokenizer").aliases == {}
    assert client.get_model_version("alto-tokenizer", "1").tags["licence"] == "Apache-2.0"
    client.set_registered_model_alias("alto-tokenizer", "champion", "1")
    assert alto("tokenize", "mask.png").lines == by_folder


def test_what_cannot_be_loaded_is_not_registered(alto: Alto, folder: Path) -> None:
    (folder / "converted/model.safetensors").unlink()
    refused = alto("register", "tokenizer", "converted", "--licence", "Apache-2.0")
    assert_refused(refused, "converted: no checkpoint here", folder)
    assert not (folder / ".work").exists()
