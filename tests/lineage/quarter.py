"""A project whose jobs are stand-ins that take milliseconds, driven by its own sensors and schedule, week by week."""

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from jobs.runner.check_failed import CheckFailed
from jobs.runner.job_spec import JobSpec
from jobs.runner.stage_lock import StageLock
from orchestration import definitions as code_location
from orchestration.partitions import add_missing_batches
from orchestration.promotion.champion import ALTOLLM, CHAMPION, Registry
from tests.benchmarks.scale_project import checks_of
from tests.lineage.project import copy_repository
from tests.orchestration.promotion.answers import write_answers

MONDAY = datetime(2030, 1, 7, 3, tzinfo=UTC)
BROKEN = b"broken"  # content of a shard that breaks its contract
RULES = {"gains": ["giou"], "max_loss": {"giou": 0.01}, "max_slowdown": None, "resamples": 200}


@dataclass
class World:
    """What the stand-ins do at present. iou: of the trained model's answers. ran: addresses, since last asked."""

    answers: Path
    iou: float = 0.5
    diverges: bool = False
    ran: list[str] = field(default_factory=list)

    def launch_for(self, context: dg.AssetExecutionContext) -> Any:
        def launch(spec: JobSpec, lock: StageLock) -> None:
            self.ran.append(str(spec.address))
            broken = any(BROKEN in file.read_bytes() for file in shards_of(spec))
            refused = broken or (spec.stage == "altollm_sft" and self.diverges)
            shutil.rmtree(spec.staging, ignore_errors=True)
            spec.staging.mkdir(parents=True)
            leave_result(spec, refused)
            if spec.stage == "benchmark":
                write_answers(self.answers, spec.staging, self.iou)
            if refused:
                shutil.rmtree(spec.rejected, ignore_errors=True)
                spec.staging.rename(spec.rejected)
                raise CheckFailed.of(spec)

        return launch


def shards_of(spec: JobSpec) -> list[Path]:
    if spec.stage != "prepare_sa1b":
        return []
    return list((spec.inputs["acquire_sa1b"] / str(spec.partition)).glob("*.tar"))


def leave_result(spec: JobSpec, refused: bool) -> None:
    """A result that differs with parameters and inputs; a shard is its own file."""
    (spec.staging / "result.json").write_text(json.dumps([spec.fingerprint]))
    if spec.stage == "acquire_sa1b":
        for shard in spec.partition_items:
            shutil.copy(Path(spec.parameters["folder"], shard), spec.staging / shard)
    checks = [
        {"name": name, "passed": not refused, "blocking": True, "reason": "as the test says", "details": {}}
        for name in checks_of(spec.stage)
    ]
    report = {"figures": {"rows_accepted": 100}, "checks": checks}
    (spec.staging / "report.json").write_text(json.dumps(report))


@dataclass
class Week:
    """ran: addresses whose job was started. said: why a retraining was started or not. champion: version after it."""

    ran: list[str]
    said: str
    champion: str | None
    failed: list[str]


class Quarter:
    """The project, its Dagster instance and the clock."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, world: World) -> None:
        self.root, self.instance, self.world = root, instance, world
        self.week = 0
        self.definitions = code_location.build_definitions(root)
        self.failed: list[str] = []

    def add_shard(self, content: bytes) -> None:
        (self.root / "shards" / f"sa_{self.week + 1:06d}.tar").write_bytes(content)

    def go_on(self) -> Week:
        """A week: new shards, what failed, the tick of the schedule, and what follows."""
        self.world.ran.clear()
        self.failed = []
        self._look("new_shards", "sa1b_data")
        self._look("retry_failed", "")
        schedule = self.definitions.resolve_schedule_def("weekly_retraining")
        moment = MONDAY + timedelta(weeks=self.week)
        tick = schedule.evaluate_tick(
            dg.build_schedule_context(self.instance, scheduled_execution_time=moment)
        )
        for request in tick.run_requests or []:
            if self._run("retraining", request):
                self._evaluate_and_report()
        said = tick.skip_message or (tick.run_requests or [])[0].tags["alto/why"]
        self.week += 1
        return Week(ran=list(self.world.ran), said=said, champion=self.champion(), failed=self.failed)

    def _look(self, sensor: str, job: str) -> None:
        definition = self.definitions.resolve_sensor_def(sensor)
        ticked = definition(dg.build_sensor_context(self.instance, definitions=self.definitions))
        if not isinstance(ticked, dg.SensorResult):
            return
        for request in ticked.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        for request in ticked.run_requests or []:
            self._run(request.job_name or job, request)

    def _evaluate_and_report(self) -> None:
        """As the sensors that follow a run ask for."""
        for benchmark in ("scenes",):
            if not self._run("evaluation", dg.RunRequest(partition_key=benchmark)):
                return
        self._run("reporting", dg.RunRequest())

    def _run(self, job: str, request: dg.RunRequest) -> bool:
        result = self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            raise_on_error=False,
        )
        if not result.success:
            self.failed.append(job)
        return result.success

    def champion(self) -> str | None:
        version = Registry(self.root).version(ALTOLLM, CHAMPION)
        return None if version is None else str(version.version)


def create(root: Path) -> None:
    """Profile smoke, one shard in a folder, and settings by which nothing waits."""
    copy_repository(root)
    (root / "shards").mkdir()
    (root / "shards" / "sa_000000.tar").write_bytes(b"first")
    for name, changes in {
        "params.yaml": {
            "acquire_sa1b": {"source": "folder", "folder": str(root / "shards")},
            "promotion": RULES,
        },
        "partitions.yaml": {"sa1b": {"batches": ["batch_000"], "shards": {"batch_000": ["sa_000000.tar"]}}},
        "infra/automation.yaml": {
            "new_data": {"seconds_between_looks": 60, "settled_seconds": 0},
            "retrying": {"times": 2, "after_minutes": 0},
        },
    }.items():
        content = yaml.safe_load((root / name).read_text())
        for key, value in changes.items():
            content[key] = content[key] | value if key == "promotion" else value
        (root / name).write_text(yaml.safe_dump(content, sort_keys=False))


def prepare_data(quarter: Quarter) -> None:
    """Everything before training, once."""
    add_missing_batches(quarter.root, quarter.instance)
    lineage = code_location.read_lineage(quarter.root)
    order = ("benchmark_data", "referring_data", "sa1b_data")
    first = {
        "benchmark_data": "acquire_benchmark",
        "referring_data": "acquire_referring",
        "sa1b_data": "acquire_sa1b",
    }
    for job in order:
        for address in lineage.stage(first[job]).addresses:
            quarter._run(job, dg.RunRequest(partition_key=address.partition))
    assert quarter.failed == []
