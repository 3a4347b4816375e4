"""`python -m orchestration.launching JOB_JSON`: run a frozen job with its launcher, for `dvc repro`."""

import argparse
import sys
from pathlib import Path

from data_contracts.errors import InputError, JobStopped
from jobs.runner.check_failed import CheckFailed
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import project_root
from jobs.runner.stopping import STATUS_STOPPED, this_process
from jobs.runner.verdict import (
    STATUS_CHECK_FAILED,
    STATUS_DIED,
    STATUS_WRONG_INPUT,
    leave_verdict,
)
from orchestration.launching.choice import launcher_for
from orchestration.launching.failures import JobFailed
from orchestration.launching.interface import JobOrder, LaunchFailed
from orchestration.launching.watch import live_job, run_job


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m orchestration.launching", description=__doc__)
    parser.add_argument("job", type=Path, help="job.json written by the runner")
    spec = JobSpec.read(parser.parse_args().job)
    this_process.listen()
    try:
        launcher = launcher_for(spec, project_root())
        run_job(launcher, JobOrder.of(spec, {}), live_job(launcher, spec), say)
    except InputError as error:
        leave_verdict(spec, error)  # for the runner that started this; the job itself may not have begun
        return STATUS_WRONG_INPUT
    except CheckFailed:
        return STATUS_CHECK_FAILED
    except JobStopped as stopped:
        say(f"error: {stopped}")
        return STATUS_STOPPED
    except (JobFailed, LaunchFailed) as error:
        say(f"error: {error}")
        return STATUS_DIED
    return 0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
