"""Runs one job from its frozen order: `python -m jobs.runner.worker JOB_JSON`."""

import argparse
import importlib
import json
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from data_contracts.errors import InputError, JobStopped
from jobs.runner.check_failed import CheckFailed
from jobs.runner.context import JobConfig, StageContext, StageReport
from jobs.runner.disk_space import DiskTooSmall, require_disk_space
from jobs.runner.environment import write_environment
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import parameter_section
from jobs.runner.metric_log import MetricLog
from jobs.runner.processes import joined_processes, launched_rank, processes_of_this_node, scratch_folder
from jobs.runner.reporting import report_to_orchestrator
from jobs.runner.stopping import STATUS_STOPPED, this_process
from jobs.runner.tracking import tracked_run
from jobs.runner.verdict import (
    STATUS_CHECK_FAILED,
    STATUS_DIED,
    STATUS_WRONG_INPUT,
    forget_stopped,
    leave_finished,
    leave_stopped,
    leave_verdict,
)

ConfigT = TypeVar("ConfigT", bound=JobConfig)


def execute(spec: JobSpec) -> StageReport:
    """Run the job; its output and `report.json` are complete in `spec.staging` afterwards.

    Of several processes that torchrun started, each calls this; all but the first leave nothing.
    Raises InputError for wrong parameters or data, CheckFailed for a failed blocking check, DiskTooSmall.
    """
    module = importlib.import_module(f"jobs.{spec.stage}")
    config = parse_config(module.Config, parameter_section(spec.stage), spec.parameters)
    make_arithmetic_repeatable(max(1, spec.needs.cpus // processes_of_this_node()))
    if launched_rank() == 0:
        require_disk_space(spec)
    with joined_processes():
        if launched_rank() > 0:
            with scratch_folder(spec) as folder:
                log = MetricLog(folder / "metrics.jsonl")
                return module.run(config, stage_context(spec, folder / "output", log))
        report = execute_first(spec, module.run, config)
    refuse_failed_checks(spec, report)
    leave_finished(spec)
    return report


def execute_first(
    spec: JobSpec, run: Callable[[JobConfig, StageContext], StageReport], config: JobConfig
) -> StageReport:
    shutil.rmtree(spec.staging, ignore_errors=True)
    spec.staging.mkdir(parents=True)
    spec.state.mkdir(exist_ok=True)
    write_environment(spec.state)
    with report_to_orchestrator() as reporter, tracked_run(spec) as tracker:
        log = MetricLog(spec.state / "metrics.jsonl", listeners=(reporter.point, tracker.log_point))
        report = run(config, stage_context(spec, spec.staging, log))
        write_report(report, spec.staging / "report.json")
        reporter.result(report)
        tracker.log_result(report, spec.staging)
    return report


def stage_context(spec: JobSpec, output: Path, metric_log: MetricLog) -> StageContext:
    return StageContext(
        stop=this_process,
        stage=spec.stage,
        partition=spec.partition,
        partition_items=spec.partition_items,
        seed=spec.seed,
        inputs=spec.inputs,
        output=output,
        work=spec.state,
        metric_log=metric_log,
        workers=spec.workers,
        copies=spec.copies,
    )


def parse_config(
    config_class: type[ConfigT], section: str, parameters: Mapping[str, Any], file: str = "params.yaml"
) -> ConfigT:
    """A typed section of a file, such as a stage's parameters. Raises InputError: one line naming every wrong key."""
    try:
        return config_class.model_validate(dict(parameters))
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            key = ".".join([section, *map(str, problem["loc"])])
            what = "unknown parameter" if problem["type"] == "extra_forbidden" else problem["msg"]
            problems.append(f"{key}: {what}")
        raise InputError(f"{file}: {'; '.join(problems)}") from error


def make_arithmetic_repeatable(threads: int) -> None:
    """Fix what the last bits of floating-point results depend on, in jobs that use torch."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)


def write_report(report: StageReport, path: Path) -> None:
    checks = [
        {
            "name": check.name,
            "passed": bool(check.passed),
            "blocking": check.blocking,
            "reason": check.reason,
            "details": dict(check.details),
        }
        for check in report.checks
    ]
    path.write_text(json.dumps({"figures": dict(report.figures), "checks": checks}, indent=1) + "\n")


def refuse_failed_checks(spec: JobSpec, report: StageReport) -> None:
    if all(check.passed or not check.blocking for check in report.checks):
        return
    shutil.rmtree(spec.rejected, ignore_errors=True)
    spec.staging.rename(spec.rejected)
    raise CheckFailed.of(spec)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.runner.worker", description=__doc__)
    parser.add_argument("job", type=Path, help="job.json written by the runner")
    arguments = parser.parse_args()
    spec = JobSpec.read(arguments.job)
    this_process.listen()
    if launched_rank() == 0:
        forget_stopped(spec)  # of the same job before it was requeued
        print(f"{spec.address}: started on {socket.gethostname()}, {spec.fingerprint[:12]}", flush=True)
    try:
        execute(spec)
    except JobStopped as stopped:
        if launched_rank() > 0:
            return 0  # any other status would make torchrun end the first process while it still reports
        leave_stopped(spec, str(stopped))
        print(stopped, file=sys.stderr)
        return STATUS_STOPPED
    except DiskTooSmall as error:
        print(f"error: {error}", file=sys.stderr)
        return STATUS_DIED
    except (InputError, CheckFailed) as error:
        leave_verdict(spec, error)
        print(f"error: {error}", file=sys.stderr)
        return STATUS_WRONG_INPUT if isinstance(error, InputError) else STATUS_CHECK_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
