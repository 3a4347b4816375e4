"""GRPO in two processes, on ZeRO and without: the same answers, the same training, also after a kill."""

import multiprocessing
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.jobs import grpo_example as example
from tests.jobs.tokenizer_example import write_prepared_records

STEPS = 8
CHANGES: dict[str, Any] = {
    "steps": STEPS,
    "prompts_per_step": 4,
    "group_size": 3,
    "updates_per_rollout": 2,
    "save_every": 2,
    "kl_weight": 0.1,
    "learning_rate": {"peak": 2.0e-3, "warmup_steps": 1},
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grpo")
    write_prepared_records(folder / "records", "discs")
    return folder


def start(folder: Path, processes: int, stage: str | None, **options: Any) -> list[int | None]:
    """Exit statuses of the processes, which have DeepSpeed imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.alto_models.training.preloaded_deepspeed"])
    folder.mkdir(exist_ok=True)
    (folder / "meeting").unlink(missing_ok=True)
    changes = CHANGES | {"training": {"deepspeed": stage, "prompts_per_pass": 1 if processes > 1 else None}}
    options |= {"records": folder.parent / "records", "changes": changes}
    started = [
        context.Process(target=example.run, args=(folder, rank, processes), kwargs=options)
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(180)
    return [process.exitcode for process in started]


def trained(folder: Path, processes: int, stage: str | None, **options: Any) -> dict[str, Any]:
    assert start(folder, processes, stage, **options) == [0] * processes
    return torch.load(folder / example.RESULT)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["answers"][: len(other["answers"])] == other["answers"]
    first, second = dict(one["log"]), dict(other["log"])
    assert first.keys() == second.keys()
    for step, figures in first.items():
        assert second[step] == pytest.approx(figures, abs=1e-4)
    assert first[STEPS]["kl"] > 1e-4
    for name, values in one["model"].items():
        torch.testing.assert_close(other["model"][name], values, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, Any]:
    return trained(folder / "plain", 1, None)


@pytest.mark.parametrize("stage", [None, "zero1", "zero2", "zero3"])
def test_two_processes_and_several_passes_train_like_one(
    folder: Path, plain: dict[str, Any], stage: str | None
) -> None:
    assert_same(plain, trained(folder / f"two_{stage}", 2, stage))


def test_weights_of_which_every_one_is_shared_out_and_a_kill(folder: Path, plain: dict[str, Any]) -> None:
    killed = folder / "killed"
    assert start(killed, 2, "zero3", share_all=True, killed_while_saving=6)[0] == -signal.SIGKILL
    shutil.copytree(killed, folder / "killed_one")
    assert_same(plain, trained(killed, 2, "zero3", share_all=True))
    assert_same(plain, trained(folder / "killed_one", 1, "zero3", share_all=True))
