"""The sensors and the schedule as a real daemon runs them: a shard is dropped, and a model is retrained."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

from jobs.runner.lineage import read_lineage
from jobs.runner.run import run_stage
from orchestration.automation.retraining import WHY_TAG
from tests.lineage.project import copy_repository, environment
from tests.lineage.stand_ins import ROWS, leave_result

pytestmark = pytest.mark.slow
LOCATION = "tests.lineage.stand_in_location"
PREPARED = ("acquire_benchmark", "prepare_benchmark", "acquire_referring", "prepare_referring")
DEADLINE = 800.0  # seconds, for all that happens by itself


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of profile smoke with everything prepared but for SA-1B, of which there is no batch."""
    root = copy_repository(tmp_path / "project")
    (root / "shards").mkdir()
    for name, changes in {
        "params.yaml": {"acquire_sa1b": {"source": "folder", "folder": "shards"}},
        "partitions.yaml": {"sa1b": {"batches": [], "shards": {}}, "referring": {"datasets": ["refcoco"]}},
        "infra/automation.yaml": {
            "new_data": {"seconds_between_looks": 1, "settled_seconds": 0},
            "retraining": {"cron": "* * * * *", "new_rows": 2 * ROWS},
        },
    }.items():
        content = yaml.safe_load((root / name).read_text())
        for section, values in changes.items():
            content[section] |= values
        (root / name).write_text(yaml.safe_dump(content))
    lineage = read_lineage(root)
    for stage in PREPARED:
        for address in lineage.stage(stage).addresses:
            run_stage(root, address, lambda spec, lock: leave_result(spec) and None)
    home = root / ".work" / "dagster"
    home.mkdir(parents=True)
    shutil.copy(root / "infra/dagster/local.yaml", home / "dagster.yaml")
    return root


@contextmanager
def daemon(root: Path) -> Iterator[Path]:
    """Its log. Whatever it has started has ended afterwards."""
    log = root / "daemon.log"
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", LOCATION]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=root, env=environment(root), stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield log
    finally:
        started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, signal.SIGTERM)
        _, left = psutil.wait_procs(started, 20)
        for one in left:
            one.kill()
        psutil.wait_procs(left)


def test_a_dropped_shard_is_prepared_and_trained_on_by_itself(root: Path) -> None:
    home = root / ".work" / "dagster"
    with dg.DagsterInstance.from_config(str(home)) as instance, daemon(root) as log:
        end = time.monotonic() + DEADLINE

        def until(what: str, found: Callable[[], object]) -> None:
            while not found():
                assert time.monotonic() < end, f"{what} did not happen\n{log.read_text()[-5000:]}"
                time.sleep(0.5)

        def succeeded(job: str) -> list[dg.DagsterRun]:
            runs = instance.get_runs(dg.RunsFilter(job_name=job))
            failed = [run.run_id for run in runs if run.status == dg.DagsterRunStatus.FAILURE]
            assert failed == [], log.read_text()[-5000:]
            return [run for run in runs if run.status == dg.DagsterRunStatus.SUCCESS]

        until("a first look for shards", lambda: ticks(instance, "new_shards"))
        assert "no new shard in shards" in reasons(instance, "new_shards")
        until("a look for enough data", lambda: ticks(instance, "enough_new_data"))
        assert "there is no data: prepare_sa1b has never run" in reasons(instance, "enough_new_data")

        (root / "shards" / "sa_000007.tar").write_bytes(b"masks")
        until("preparation", lambda: succeeded("sa1b_data"))
        (prepared,) = succeeded("sa1b_data")
        assert prepared.tags["dagster/partition"] == "batch_000"
        assert instance.get_dynamic_partitions("sa1b_batches") == ["batch_000"]
        assert yaml.safe_load((root / "partitions.yaml").read_text())["sa1b"]["shards"] == {
            "batch_000": ["sa_000007.tar"]
        }
        until("retraining", lambda: succeeded("retraining"))
        assert "tokenizer_stage1 has never run" in succeeded("retraining")[-1].tags[WHY_TAG]
        until("evaluation", lambda: succeeded("evaluation"))
        assert succeeded("evaluation")[-1].tags["dagster/partition"] == "scenes"
        nothing = "nothing changed since the last retraining"
        until("a tick that says so", lambda: nothing in reasons(instance, "weekly_retraining"))
        for name in ("new_shards", "enough_new_data", "weekly_retraining"):
            assert [tick.error for tick in ticks(instance, name) if tick.status == TickStatus.FAILURE] == []


def ticks(instance: dg.DagsterInstance, name: str) -> list[InstigatorTick]:
    """Of a sensor or schedule, that have ended."""
    (state,) = [one for one in instance.all_instigator_state() if one.instigator_name == name] or (None,)
    if state is None:
        return []
    found = instance.get_ticks(state.instigator_origin_id, state.selector_id)
    return [tick for tick in found if tick.status != TickStatus.STARTED]


def reasons(instance: dg.DagsterInstance, name: str) -> set[str]:
    return {tick.skip_reason for tick in ticks(instance, name) if tick.skip_reason}
