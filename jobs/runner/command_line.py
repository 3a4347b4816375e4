"""`python -m jobs.<stage>`: the command in `dvc.yaml`, and the same by hand."""

import argparse
import importlib
import os
import sys

from data_contracts.errors import InputError
from jobs.runner.check_failed import CheckFailed
from jobs.runner.context import JobConfig
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress, project_root
from jobs.runner.ledger import InputsMoved
from jobs.runner.run import run_inside_dvc, run_stage
from jobs.runner.stage_lock import StageLock
from jobs.runner.worker import execute


def run_from_command_line(stage: str) -> None:
    """Run the stage and exit: 0 done, 2 wrong input, 3 blocking check failed, 4 inputs moved meanwhile."""
    module = importlib.import_module(f"jobs.{stage}")
    parser = argparse.ArgumentParser(
        prog=f"python -m jobs.{stage}",
        description=module.__doc__,
        epilog=parameter_help(stage, module.Config),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--partition", help="partition key, for a partitioned stage (see partitions.yaml)")
    arguments = parser.parse_args()
    try:
        run(StageAddress(stage, arguments.partition))
    except (InputError, CheckFailed, InputsMoved) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit({InputError: 2, CheckFailed: 3, InputsMoved: 4}[type(error)])


def run(address: StageAddress) -> None:
    root = project_root()
    os.chdir(root)
    # DVC tells a command which stage it is running it for.
    if os.environ.get("DVC_STAGE") == str(address):
        run_inside_dvc(root, address, run_in_process)
        return
    recorded = run_stage(root, address, run_in_process)
    print(f"{address}: {recorded.how}, data version {recorded.data_version}")


def run_in_process(spec: JobSpec, lock: StageLock) -> None:
    execute(spec)


def parameter_help(stage: str, config_class: type[JobConfig]) -> str:
    lines = [f"parameters (section {stage} of params.yaml):"]
    for name, field in config_class.model_fields.items():
        default = "required" if field.is_required() else f"default {field.default}"
        lines.append(f"  {name:24} {field.description or ''} ({default})")
    return "\n".join(lines)
