"""A project of profile smoke, driven by its own sensors and schedule, week by week.

Data is acquired and prepared for real. Models are stand-ins that take milliseconds, but for weeks that are to be real.
"""

import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from alto_models.data.shards import ShardRows
from alto_models.tokenizer.config import TokenizerConfig
from data_contracts.schemas import REFERRING_SCHEMA
from jobs import benchmark
from jobs.runner.job_spec import JobSpec
from jobs.runner.stage_lock import StageLock
from jobs.runner.verdict import forget_verdict
from jobs.runner.worker import execute, refuse_failed_checks
from jobs.serving.package import package_segmenter
from orchestration import definitions as code_location
from orchestration.launching.session import StageLauncher
from orchestration.partitions import add_missing_batches
from orchestration.promotion.champion import ALTOLLM, CHAMPION, Registry
from tests.jobs.benchmark_example import config, known_systems, stage_context
from tests.lineage.quarter_project import draw_shard
from tests.lineage.stand_ins import leave_result
from tests.orchestration.promotion.answers import write_answers

MONDAY = datetime(2030, 1, 7, 3, tzinfo=UTC)
REAL_IN_EVERY_WEEK = (
    *("acquire_sa1b", "prepare_sa1b", "acquire_referring", "prepare_referring"),
    *("acquire_benchmark", "prepare_benchmark", "base_weights"),
)


@dataclass
class World:
    """What jobs do at present.

    real: whether models are trained and measured for real, each job in a process of its own. iou: of a stand-in's
    answers. diverges: whether its training does. ran: addresses, since last asked.
    """

    scratch: Path
    real: bool = False
    iou: float = 0.5
    diverges: bool = False
    ran: list[str] = field(default_factory=list)

    def launch_for(self, context: dg.AssetExecutionContext) -> Any:
        really = StageLauncher().launch_for(context)

        def launch(spec: JobSpec, lock: StageLock) -> None:
            self.ran.append(str(spec.address))
            if spec.stage in REAL_IN_EVERY_WEEK:
                forget_verdict(spec)
                execute(spec)
            elif self.real:
                really(spec, lock)
            else:
                self.stand_in(spec)

        return launch

    def stand_in(self, spec: JobSpec) -> None:
        report = leave_result(spec, passed=not (self.diverges and spec.stage == "altollm_sft"))
        if spec.stage == "benchmark":
            write_answers(self.measured(spec), spec.staging, self.iou)
        refuse_failed_checks(spec, report)

    def measured(self, spec: JobSpec) -> Path:
        """Answers of known systems to the questions that a real model is asked, too."""
        folder = self.scratch / "measured"
        if not folder.exists():
            context = stage_context(folder, "benchmark", spec.partition)
            rows = ShardRows(spec.inputs["prepare_benchmark"] / str(spec.partition), REFERRING_SCHEMA, None)
            benchmark.compare_systems(rows, known_systems(), TokenizerConfig(), config(), context)
        return folder / "output"

    def package(self, altollm: Path, tokenizer: Path, to: Path) -> None:
        """What is registered of a model."""
        if self.real:
            package_segmenter(altollm, tokenizer, to)
        else:
            shutil.copytree(altollm, to)


@dataclass
class Week:
    """ran: addresses whose job was started. said: why a retraining was started or not. champion: version after it.

    failed: job -> what its run says. decided: the sentence of each promotion.
    """

    ran: list[str]
    said: str
    champion: str | None
    failed: dict[str, str]
    decided: list[str]


class Quarter:
    """The project, its Dagster instance and the clock."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, world: World) -> None:
        self.root, self.instance, self.world = root, instance, world
        self.week = 0
        self.definitions = code_location.build_definitions(root)
        self.failed: dict[str, str] = {}
        self.decided: list[str] = []

    def add_shard(self, broken: bool = False) -> None:
        draw_shard(self.root, self.week + 1, broken)

    def go_on(self) -> Week:
        """A week: new shards, what failed, the tick of the schedule, and what follows."""
        self.world.ran.clear()
        self.failed, self.decided = {}, []
        self._look("new_shards", "sa1b_data")
        self._look("retry_failed", "")
        schedule = self.definitions.resolve_schedule_def("weekly_retraining")
        moment = MONDAY + timedelta(weeks=self.week)
        tick = schedule.evaluate_tick(
            dg.build_schedule_context(self.instance, scheduled_execution_time=moment)
        )
        for request in tick.run_requests or []:
            self._run("retraining", request)
        said = tick.skip_message or (tick.run_requests or [])[0].tags["alto/why"]
        self.week += 1
        return Week(
            ran=list(self.world.ran),
            said=said,
            champion=self.champion(),
            failed=self.failed,
            decided=self.decided,
        )

    def _look(self, sensor: str, job: str) -> None:
        definition = self.definitions.resolve_sensor_def(sensor)
        ticked = definition(dg.build_sensor_context(self.instance, definitions=self.definitions))
        if not isinstance(ticked, dg.SensorResult):
            return
        for request in ticked.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        for request in ticked.run_requests or []:
            self._run(request.job_name or job, request)

    def _follow(self, job: str, result: dg.ExecuteInProcessResult) -> None:
        """What the sensors that look for the end of a run ask for."""
        if job not in FOLLOWED:
            return
        sensor, following = FOLLOWED[job]
        context = dg.build_run_status_sensor_context(
            sensor, result.get_run_success_event(), self.instance, result.dagster_run
        )
        asked = self.definitions.resolve_sensor_def(sensor)(context)
        for request in [asked] if isinstance(asked, dg.RunRequest) else asked:
            self._run(following, request)

    def _run(self, job: str, request: dg.RunRequest) -> None:
        result = self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            raise_on_error=False,
        )
        if result.success:
            self._follow(job, result)
        else:
            self.failed[job] = "; ".join(map(failure, result.filter_events(lambda one: one.is_step_failure)))
        if "promotion" in {key.to_user_string() for key in materialized(result)}:
            (event,) = result.asset_materializations_for_node("promotion")
            self.decided.append(str(event.metadata["decision"].value))

    def champion(self) -> str | None:
        version = Registry(self.root).version(ALTOLLM, CHAMPION)
        return None if version is None else str(version.version)


FOLLOWED = {
    "retraining": ("evaluate_after_retraining", "evaluation"),
    "evaluation": ("report_after_evaluation", "reporting"),
}


def materialized(result: dg.ExecuteInProcessResult) -> list[dg.AssetKey]:
    return [event.asset_key for event in result.get_asset_materialization_events() if event.asset_key]


def failure(event: dg.DagsterEvent) -> str:
    """What the step says, or the error that it did not expect."""
    data = event.step_failure_data
    if data.user_failure_data:
        return str(data.user_failure_data.description)
    error = data.error
    while error and error.cause:
        error = error.cause
    return error.message if error else ""


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
    assert quarter.failed == {}
