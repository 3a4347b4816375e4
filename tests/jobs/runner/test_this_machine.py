"""What launcher local can give a job: this machine, and the GPUs in it."""

from pathlib import Path

import pytest

from data_contracts.errors import InputError
from jobs.runner.job_spec import JobSpec, Needs
from jobs.runner.processes import launch_command, require_this_machine
from tests.jobs.runner.specs import job_spec


def spec(**needs: int) -> JobSpec:
    return job_spec("altollm_sft", Path("work"), needs=Needs(**needs))


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: A (UUID: y)'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_nodes_are_refused_with_the_reason() -> None:
    with pytest.raises(
        InputError, match=r"resources.needs.altollm_sft: 2 nodes, and launcher local has this"
    ):
        launch_command(spec(nodes=2))


def test_gpus_that_are_here_are_enough(two_gpus: None) -> None:
    require_this_machine(spec(gpus=2))
    with pytest.raises(
        InputError, match=r"4 GPUs, and launcher local has the 2 of this machine: choose slurm"
    ):
        require_this_machine(spec(gpus=4))


def test_without_a_driver_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    require_this_machine(spec())
    with pytest.raises(InputError, match="the 0 of this machine"):
        require_this_machine(spec(gpus=1))
