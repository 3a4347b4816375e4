"""`python -m jobs.<stage>`: the command in `dvc.yaml`, and the same by hand."""

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

from data_contracts.errors import InputError, JobStopped
from jobs.runner.check_failed import CheckFailed
from jobs.runner.context import JobConfig
from jobs.runner.disk_space import DiskTooSmall
from jobs.runner.exchange import Unreachable
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress, parameter_section, project_root
from jobs.runner.ledger import InputsMoved
from jobs.runner.parameters import documented_parameters
from jobs.runner.processes import (
    announce,
    announced,
    joined_processes,
    launch_command,
    launched_processes,
    launched_rank,
    require_this_machine,
)
from jobs.runner.run import run_inside_dvc, run_stage
from jobs.runner.stage_lock import StageLock
from jobs.runner.stopping import STATUS_STOPPED, this_process
from jobs.runner.verdict import (
    STATUS_CHECK_FAILED,
    STATUS_DIED,
    STATUS_STORAGE_LOST,
    STATUS_WRONG_INPUT,
    JobDied,
    StoppedEarly,
    forget_verdict,
    leave_stopped,
    raise_verdict,
)
from jobs.runner.worker import execute

STATUS: dict[type[BaseException], int] = {
    JobDied: STATUS_DIED,
    DiskTooSmall: STATUS_DIED,
    InputError: STATUS_WRONG_INPUT,
    CheckFailed: STATUS_CHECK_FAILED,
    InputsMoved: 4,
    Unreachable: STATUS_STORAGE_LOST,
    StoppedEarly: STATUS_STOPPED,
    JobStopped: STATUS_STOPPED,
}


def run_from_command_line(stage: str) -> None:
    """Run the stage and exit: 0 done, 1 died, 2 wrong input, 3 blocking check failed, 4 inputs moved, 69 the storage
    stayed away, 75 asked to stop (run again, it goes on)."""
    module = importlib.import_module(f"jobs.{stage}")
    parser = argparse.ArgumentParser(
        prog=f"python -m jobs.{stage}",
        description=module.__doc__,
        epilog=parameter_help(stage, module.Config),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--partition", help="partition key, for a partitioned stage (see partitions.yaml)")
    # DeepSpeed's launcher adds it; LOCAL_RANK in the environment says the same.
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    this_process.listen()
    try:
        run(asked_address(stage, arguments.partition))
    except tuple(STATUS) as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, JobStopped) and launched_rank() > 0:
            sys.exit(0)  # see jobs/runner/worker.py
        sys.exit(STATUS[type(error)])


def asked_address(stage: str, partition: str | None) -> StageAddress:
    """The partition is the one given or, inside `dvc repro`, the one that DVC says it runs the command for.

    DVC hands its commands to a shell, so `dvc.yaml` writes no name from `partitions.yaml` into them.
    """
    told = os.environ.get("DVC_STAGE", "")
    if partition is None and told.startswith(f"{stage}@"):
        return StageAddress.parse(told)
    return StageAddress(stage, partition)


def run(address: StageAddress) -> None:
    root = project_root()
    os.chdir(root)
    with joined_processes():
        if launched_rank() == 0:
            run_first(root, address)
            announce(None)
        while launched_rank() > 0 and (job := announced()) is not None:
            execute(JobSpec.read(job))


def run_first(root: Path, address: StageAddress) -> None:
    """Run and record the stage; of several processes, the one that decides what there is to do."""
    # DVC tells a command which stage it is running it for.
    if os.environ.get("DVC_STAGE") == str(address):
        run_inside_dvc(root, address, launch)
        return
    recorded = run_stage(root, address, launch)
    print(f"{address}: {recorded.how}, data version {recorded.data_version}")


def launch(spec: JobSpec, lock: StageLock) -> None:
    """Run the job here, or start the processes that `resources` asks for: on this machine, or by its launcher."""
    here = spec.launcher == "local" and spec.work_tree == "shared"
    if here and launched_processes() == 1:
        require_this_machine(spec)
    if launched_processes() > 1 or (here and spec.processes == 1):
        announce(spec.path)
        execute(spec)
        return
    if here:
        forget_verdict(spec)
        command = launch_command(spec)
    else:  # a process of its own, for jobs import nothing of orchestration
        command = [sys.executable, "-m", "orchestration.launching", str(spec.path)]
    process = subprocess.Popen(command, pass_fds=[lock.fileno()])
    with this_process.passed_on(process.terminate):
        status = process.wait()
    if status == STATUS_STOPPED:
        leave_stopped(spec, "asked to stop")
    if status != 0:
        raise_verdict(spec, f"ended with status {status}")


def parameter_help(stage: str, config_class: type[JobConfig]) -> str:
    lines = [f"parameters (section {parameter_section(stage)} of params.yaml):"]
    for parameter in documented_parameters(config_class):
        default = "required" if parameter.default is None else f"default {parameter.default}"
        lines.append(f"  {parameter.path:32} {parameter.meaning} ({parameter.type}; {default})")
    return "\n".join(lines)
