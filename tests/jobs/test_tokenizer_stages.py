"""The mask tokenizer's stages on tiny data: what they leave, and that a killed training resumes exactly."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from alto_models.tokenizer.model import load_tokenizer
from alto_models.tokenizer.whole_image import decode_to_image, embed_whole_image
from alto_models.training.loop import NonFiniteLossError
from data_contracts.errors import InputError
from data_contracts.schemas import MASK_TOKENS_SCHEMA
from jobs import mask_tokens, tokenizer_benchmark, tokenizer_stage1, tokenizer_stage1_5
from jobs.benchmarking.results import TokenizerMetrics
from jobs.runner.context import StageReport
from tests.jobs.tokenizer_example import (
    context,
    parameters,
    write_prepared_masks,
    write_prepared_records,
)


class Killed(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared_masks(tmp_path_factory.mktemp("prepare_sa1b"))


@pytest.fixture(scope="module")
def stage1(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageReport]:
    return run_stage1(prepared, tmp_path_factory.mktemp("stage1"))


@pytest.fixture(scope="module")
def stage1_5(
    prepared: Path, stage1: tuple[Path, StageReport], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, StageReport]:
    return run_stage1_5(prepared, stage1[0], tmp_path_factory.mktemp("stage1_5"))


def run_stage1(prepared: Path, folder: Path, **changes: object) -> tuple[Path, StageReport]:
    config = tokenizer_stage1.Config.model_validate(parameters("tokenizer_stage1") | changes)
    run = context(folder, "tokenizer_stage1", prepare_sa1b=prepared)
    return run.output, tokenizer_stage1.run(config, run)


def run_stage1_5(prepared: Path, start: Path, folder: Path, **changes: object) -> tuple[Path, StageReport]:
    config = tokenizer_stage1_5.Config.model_validate(parameters("tokenizer_stage1_5") | changes)
    run = context(folder, "tokenizer_stage1_5", prepare_sa1b=prepared, tokenizer_stage1=start)
    return run.output, tokenizer_stage1_5.run(config, run)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kill_at(monkeypatch: pytest.MonkeyPatch, objective: str, step: int) -> None:
    """Let the `step`-th forward pass of the run raise instead."""
    module, name = objective.rsplit(".", 1)
    owner = getattr(__import__(module, fromlist=[name]), name)
    forward = owner.forward
    calls = 0

    def counted(self: object, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == step:
            raise Killed
        return forward(self, *arguments)

    monkeypatch.setattr(owner, "forward", counted)


@pytest.mark.parametrize("step", [2, 11, 16])
def test_killed_stage1_ends_like_an_uninterrupted_one(
    prepared: Path,
    stage1: tuple[Path, StageReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, "alto_models.tokenizer.stage1.Stage1", step)
        with pytest.raises(Killed):
            run_stage1(prepared, tmp_path)
    (tmp_path / "tokenizer_stage1" / "output").rmdir()
    output, report = run_stage1(prepared, tmp_path)
    assert contents(output) == contents(stage1[0])
    assert report == stage1[1]


@pytest.mark.slow
def test_a_run_goes_on_with_reading_workers(
    prepared: Path, stage1: tuple[Path, StageReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, "alto_models.tokenizer.stage1.Stage1", 11)
        with pytest.raises(Killed):
            run_stage1(prepared, tmp_path)
    (tmp_path / "tokenizer_stage1" / "output").rmdir()
    config = tokenizer_stage1.Config.model_validate(parameters("tokenizer_stage1"))
    run = replace(context(tmp_path, "tokenizer_stage1", prepare_sa1b=prepared), workers=2)
    assert tokenizer_stage1.run(config, run) == stage1[1]
    assert contents(run.output) == contents(stage1[0])


def test_killed_stage1_5_ends_like_an_uninterrupted_one(
    prepared: Path,
    stage1: tuple[Path, StageReport],
    stage1_5: tuple[Path, StageReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, "alto_models.tokenizer.stage1_5.PredictorTraining", 5)
        with pytest.raises(Killed):
            run_stage1_5(prepared, stage1[0], tmp_path)
    (tmp_path / "tokenizer_stage1_5" / "output").rmdir()
    output, report = run_stage1_5(prepared, stage1[0], tmp_path)
    assert contents(output) == contents(stage1_5[0])
    assert report == stage1_5[1]


def test_stage1_leaves_a_checkpoint_and_pictures(stage1: tuple[Path, StageReport]) -> None:
    output, report = stage1
    assert sorted(contents(output)) == [
        "config.json",
        "curves.parquet",
        "model.safetensors",
        "pictures/curves.png",
        "pictures/samples.png",
    ]
    assert load_tokenizer(output).config.max_length == 4
    assert [check.name for check in report.checks] == ["training_health", "beats_baselines"]
    assert report.checks[0].blocking


def test_stage1_trains_all_but_the_length_predictor(
    prepared: Path, stage1: tuple[Path, StageReport], tmp_path: Path
) -> None:
    trained = dict(load_tokenizer(stage1[0]).named_parameters())
    torch.manual_seed(11)
    config = tokenizer_stage1.Config.model_validate(parameters("tokenizer_stage1"))
    fresh = dict(tokenizer_stage1.MaskTokenizer(config.tokenizer).named_parameters())
    same = {name for name, tensor in fresh.items() if torch.equal(tensor, trained[name])}
    assert same == {name for name in fresh if name.startswith("length_predictor.")}


def test_stage1_5_trains_the_length_predictor_only(
    stage1: tuple[Path, StageReport], stage1_5: tuple[Path, StageReport]
) -> None:
    before, after = load_tokenizer(stage1[0]).state_dict(), load_tokenizer(stage1_5[0]).state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    predictor = {name for name in before if name.startswith("length_predictor.")}
    # How its features are normalised is left by stage 1.
    assert changed == {name for name in predictor if ".normalise." not in name}


@pytest.mark.parametrize(("objective", "price"), [("oracle", 5.0), ("chunking", 50.0)])
def test_dear_codes_make_short_masks(
    prepared: Path, stage1: tuple[Path, StageReport], tmp_path: Path, objective: str, price: float
) -> None:
    _, report = run_stage1_5(
        prepared,
        stage1[0],
        tmp_path,
        objective={"objective": objective, "length_weight": price, "prefixes": 3, "temperature": 0.01},
        steps=30,
        learning_rate={"peak": 0.05, "final": 0.01, "warmup_steps": 0},
    )
    # An expectation just above 1 is rounded up.
    assert float(report.figures["mean_length"]) <= 2


def test_non_finite_loss_names_step_and_images(prepared: Path, tmp_path: Path) -> None:
    weights = parameters("tokenizer_stage1")["objective"] | {"bce_weight": float("1e39")}
    with pytest.raises(NonFiniteLossError, match=r"step 0; samples of the batch: image-\d, image-\d"):
        run_stage1(prepared, tmp_path, objective=weights)


def test_base_weights_of_another_shape_are_refused(
    prepared: Path, stage1: tuple[Path, StageReport], tmp_path: Path
) -> None:
    section = parameters("tokenizer_stage1") | {"initial_weights": "base"}
    section["tokenizer"] = section["tokenizer"] | {"codebook_size": 32}
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer").symlink_to(stage1[0])
    run = context(tmp_path, "tokenizer_stage1", prepare_sa1b=prepared, base_weights=tmp_path / "base")
    with pytest.raises(InputError, match="made for codebook_size 16, the parameters say 32"):
        tokenizer_stage1.run(tokenizer_stage1.Config.model_validate(section), run)


def test_benchmark_counts_agree_with_its_samples(
    prepared: Path, stage1_5: tuple[Path, StageReport], tmp_path: Path
) -> None:
    run = context(tmp_path, "tokenizer_benchmark", prepare_sa1b=prepared, tokenizer_stage1_5=stage1_5[0])
    config = tokenizer_benchmark.Config.model_validate(parameters("tokenizer_benchmark"))
    tokenizer_benchmark.run(config, run)
    metrics = json.loads((run.output / "metrics.json").read_text())
    assert TokenizerMetrics.model_validate(metrics).by_length[-1].bits == 4 * 4
    samples = pq.read_table(run.output / "samples.parquet").to_pydict()
    assert metrics["iou"] == pytest.approx(np.mean(samples["iou"]))
    assert metrics["mean_length"] == pytest.approx(np.mean(samples["length"]))
    by_length = np.array(samples["iou_by_length"])
    assert [point["iou"] for point in metrics["by_length"]] == pytest.approx(by_length.mean(0).tolist())
    for ious, length, iou in zip(by_length, samples["length"], samples["iou"], strict=True):
        assert ious[length - 1] == pytest.approx(iou, abs=1e-3)
    fixed = [np.interp(metrics["mean_length"], [1, 2, 3, 4], row) for row in by_length]
    assert metrics["fixed_iou"] == pytest.approx(np.mean(fixed))
    assert metrics["adaptive_gain"] == pytest.approx(metrics["iou"] - metrics["fixed_iou"])
    low, high = metrics["adaptive_gain_interval"]
    assert low <= metrics["adaptive_gain"] <= high
    enough = by_length >= by_length[:, -1:] - metrics["oracle"]["tolerance"]
    best = [row[good].item(0) for row, good in zip(by_length, enough, strict=True)]
    assert metrics["oracle"]["iou_regret"] == pytest.approx(np.mean(best) - metrics["iou"])
    assert set(metrics["baselines"]) == {"mean_mask", "all_zero", "all_one", "untrained"}
    assert metrics["baselines"]["all_zero"] == 0
    assert metrics["baselines"]["untrained"] == pytest.approx(np.mean(samples["untrained_iou"]))
    assert metrics["limit"] is None  # there are fewer images than the parameters allow


def test_mask_tokens_rebuild_the_masks_they_stand_for(
    stage1_5: tuple[Path, StageReport], tmp_path: Path
) -> None:
    records = write_prepared_records(tmp_path / "prepare_referring", "discs")
    run = context(tmp_path, "mask_tokens", prepare_referring=records, tokenizer_stage1_5=stage1_5[0])
    config = mask_tokens.Config.model_validate(parameters("mask_tokens"))
    report = mask_tokens.run(config, run)
    table = pq.read_table(run.output / "discs.parquet")
    assert table.schema.equals(MASK_TOKENS_SCHEMA)
    assert [(row["image_id"], row["record_id"]) for row in table.to_pylist()] == [
        (f"image-{number}", record) for number in range(3) for record in ("one", "both")
    ]
    assert report.figures["masks"] == 6
    check_first_row(table, stage1_5[0], records)


def test_oracle_lengths_are_the_shortest_prefixes_that_are_good_enough(
    stage1: tuple[Path, StageReport], tmp_path: Path
) -> None:
    records = write_prepared_records(tmp_path / "prepare_referring", "discs")
    rows = {}
    for tolerance in (0.0, 0.05, 1.0):
        run = context(
            tmp_path / str(tolerance), "mask_tokens", prepare_referring=records, tokenizer_stage1_5=stage1[0]
        )
        section = parameters("mask_tokens") | {"lengths": "oracle", "oracle_tolerance": tolerance}
        mask_tokens.run(mask_tokens.Config.model_validate(section), run)
        rows[tolerance] = pq.read_table(run.output / "discs.parquet").to_pylist()
    assert {row["length"] for row in rows[1.0]} == {1}
    for strict, lenient in zip(rows[0.0], rows[0.05], strict=True):
        assert strict["codes"] == lenient["codes"]
        assert lenient["length"] <= strict["length"] <= 4
        # Measured at image resolution, a little apart from the masks that the model sees.
        assert strict["adaptive_iou"] >= strict["full_iou"] - 0.02
        assert lenient["adaptive_iou"] >= lenient["full_iou"] - 0.07


def check_first_row(table: pa.Table, model_folder: Path, records: Path) -> None:
    from alto_models.data.referring import ReferringImages
    from alto_models.masks import decode
    from alto_models.metrics import iou

    model = load_tokenizer(model_folder)
    image = ReferringImages(records, "train")[0]
    row = table.to_pylist()[0]
    assert len(row["codes"]) == 4
    assert 1 <= row["length"] <= 4
    embedding = embed_whole_image(model, [image.image])
    for length, expected in ((4, row["full_iou"]), (row["length"], row["adaptive_iou"])):
        codes = torch.tensor([row["codes"]])
        (mask,) = decode_to_image(model, codes, torch.tensor([length]), embedding, [(48, 48)])
        rle = image.records[0].rle
        assert rle is not None
        assert iou(mask, decode(rle).astype(bool)) == pytest.approx(expected, abs=1e-3)
