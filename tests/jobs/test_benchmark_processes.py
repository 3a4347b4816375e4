"""The benchmarks in several processes, started by torchrun as the runner starts them."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alto_models.checkpoint import save_checkpoint
from alto_models.tokenizer.model import MaskTokenizer
from jobs import benchmark, tokenizer_benchmark
from jobs.runner.context import StageContext
from jobs.runner.job_spec import JobSpec
from jobs.runner.processes import launch_command
from tests.jobs.benchmark_example import config, write_prepared
from tests.jobs.stage_processes import environment, train, written
from tests.jobs.test_benchmark import TINY, checkpoints, tiny_llm
from tests.jobs.tokenizer_example import context, parameters, write_prepared_masks

IMAGES = 7
A_SHARD = config(images_per_shard=1, bootstrap_resamples=100)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> StageContext:
    """The stage run in this process."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_prepared(folder / "prepared" / "scenes", IMAGES)
    torch.manual_seed(0)
    run = checkpoints(folder, MaskTokenizer(TINY).eval(), tiny_llm())
    benchmark.run(A_SHARD, run)
    return run


def job(alone: StageContext, folder: Path, processes: int) -> JobSpec:
    spec = written("benchmark", folder, dict(alone.inputs), processes, A_SHARD.model_dump())
    spec = spec.model_copy(update={"partition": "scenes", "seed": alone.seed})
    spec.write()
    return spec


def contents(output: Path) -> dict[str, bytes]:
    files = (path for path in output.rglob("*") if path.is_file() and path.name != "report.json")
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_killed_with_two_processes_and_resumed_with_three_ends_like_one(
    alone: StageContext, tmp_path: Path
) -> None:
    two = job(alone, tmp_path / "job", 2)
    process = subprocess.Popen(
        launch_command(two), env=environment(two.work), stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(finished := shards(two)) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # torchrun only: its processes have sessions of their own
    process.wait()
    assert 3 <= len(finished) < 2 * IMAGES
    three = job(alone, two.work, 3)
    resumed = train(three)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(three.staging) == contents(alone.output)
    after = shards(three)
    assert len(after) == 2 * IMAGES  # of the two protocols
    assert {name: after[name] for name in finished} == finished  # none was written again
    assert (three.state / "speed.json").is_file()


def shards(spec: JobSpec) -> dict[str, int]:
    """Finished ones -> when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in spec.state.glob("*.parquet")}


@pytest.mark.slow
def test_the_tokenizer_is_measured_by_two_processes_as_by_one(tmp_path: Path) -> None:
    inputs = {
        "prepare_sa1b": write_prepared_masks(tmp_path / "prepared", held_out=5),
        "tokenizer_stage1_5": tmp_path / "tokenizer",
    }
    torch.manual_seed(0)
    save_checkpoint(inputs["tokenizer_stage1_5"], TINY, MaskTokenizer(TINY).state_dict())
    changes = {"images": 5, "images_per_shard": 1}
    section = parameters("tokenizer_benchmark") | changes
    one = replace(context(tmp_path, "tokenizer_benchmark", **inputs), seed=11)
    tokenizer_benchmark.run(tokenizer_benchmark.Config.model_validate(section), one)
    two = written("tokenizer_benchmark", tmp_path / "job", inputs, 2, changes)
    finished = train(two)
    assert finished.returncode == 0, finished.stderr
    assert contents(two.staging) == contents(one.output)
