"""DeepSpeed's ZeRO behind the training loop: the same training as without, also after a kill."""

import json
import multiprocessing
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from alto_models.training.muon import Muon
from alto_models.training.zero import ZeroEngine, read_settings
from data_contracts.errors import InputError
from jobs.runner.stopping import STATUS_STOPPED
from tests.alto_models.training import zero_example as example

STAGES = ("zero1", "zero2", "zero3")


def start(folder: Path, processes: int, **options: Any) -> list[int | None]:
    """Exit statuses of the processes, which have DeepSpeed imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.alto_models.training.preloaded_deepspeed"])
    folder.mkdir(exist_ok=True)
    (folder / "meeting").unlink(missing_ok=True)
    started = [
        context.Process(target=example.run, args=(folder, rank, processes), kwargs=options)
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(180)
    return [process.exitcode for process in started]


def trained(folder: Path, processes: int, **options: Any) -> dict[str, Any]:
    assert start(folder, processes, **options) == [0] * processes
    return torch.load(folder / example.RESULT)


def assert_same(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-5) -> None:
    log = dict(one["log"])
    for step, figures in other["log"]:
        assert figures == pytest.approx(log[step], abs=tolerance)
    assert other["log"][-1][0] == example.STEPS
    for name, values in one["model"].items():
        torch.testing.assert_close(other["model"][name], values, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zero")


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, Any]:
    return trained(folder / "plain", 1, stage=None)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_and_several_passes_train_like_one(
    folder: Path, plain: dict[str, Any], stage: str
) -> None:
    assert_same(plain, trained(folder / stage, 2, stage=stage, samples_per_pass=2))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [None, "zero3"])
def test_one_process_is_asked_to_stop_and_all_do_after_the_same_step(
    folder: Path, plain: dict[str, Any], stage: str | None
) -> None:
    stopped = folder / f"{stage}_stopped"
    statuses = start(stopped, 2, stage=stage, samples_per_pass=2, last_asked_at=4)
    assert statuses == [STATUS_STOPPED] * 2
    resumed = trained(stopped, 2, stage=stage, samples_per_pass=2)
    assert (
        resumed["first"] == 6
    )  # asked in step 5 (counted from 1), said to the others after it, and agreed after the next
    assert_same(plain, resumed)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_while_saving_goes_on_with_two_processes_and_with_one(
    folder: Path, plain: dict[str, Any], stage: str
) -> None:
    killed = folder / f"{stage}_killed"
    assert start(killed, 2, stage=stage, killed_while_saving=6)[0] == -signal.SIGKILL
    assert (killed / "step_6").is_dir()
    shutil.copytree(killed, folder / f"{stage}_one")
    for resumed in (trained(killed, 2, stage=stage), trained(folder / f"{stage}_one", 1, stage=stage)):
        assert resumed["first"] == 3
        assert_same(plain, resumed)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_bfloat16_ends_in_float32_near_float32_with_frozen_weights_untouched(
    folder: Path, plain: dict[str, Any], stage: str
) -> None:
    result = trained(folder / f"{stage}_bf16", 2, stage=stage, precision="bf16")
    assert_same(plain, result, tolerance=0.05)
    assert torch.equal(result["model"]["0.weight"], plain["model"]["0.weight"])
    trained_weight = result["model"]["1.weight"]
    assert not torch.equal(trained_weight, trained_weight.bfloat16().float())


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_before_a_checkpoint_holds_it(folder: Path) -> None:
    spoilt = folder / "spoilt"
    assert start(spoilt, 2, stage="zero2", bad_step=5) == [1, 1]
    assert json.loads((spoilt / "latest.json").read_text())["step"] == 3


def test_settings_that_the_stage_decides_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "zero9.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 1}, "gradient_clipping": 5.0}))
    with pytest.raises(InputError, match=r"zero9.json: take out gradient_clipping"):
        read_settings(path)
    path.write_text("{")
    with pytest.raises(InputError, match="not a readable DeepSpeed configuration"):
        read_settings(path)


def test_muon_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = Muon([{"params": [model.weight], "matrices": True}], weight_decay=0.0)
    with pytest.raises(InputError, match="adamw"):
        ZeroEngine(
            model,
            optimizer,
            lambda step: pytest.fail("never called"),
            settings=example.ROOT / "infra/deepspeed/zero1.json",
            folder=tmp_path,
            passes=1,
            precision="fp32",
            max_norm=1.0,
        )
