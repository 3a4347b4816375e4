"""How a job that was started as a process tells its launcher what ended it; torchrun passes on no exit status."""

import shutil
from pathlib import Path

from data_contracts.errors import InputError
from jobs.runner.check_failed import CheckFailed
from jobs.runner.job_spec import JobSpec


class JobDied(Exception):
    """The job ended without saying why: killed, out of memory, or an error in the code."""


def forget_verdict(spec: JobSpec) -> None:
    """Before a job is started."""
    _wrong_input(spec).unlink(missing_ok=True)
    shutil.rmtree(spec.rejected, ignore_errors=True)


def leave_verdict(spec: JobSpec, error: InputError | CheckFailed) -> None:
    """A failed check leaves its rejected result; wrong input its line."""
    if isinstance(error, InputError):
        _wrong_input(spec).write_text(str(error))


def raise_verdict(spec: JobSpec, ended: str) -> None:
    """Raise what a job that failed has left: InputError, CheckFailed, or else JobDied saying how it `ended`."""
    if _wrong_input(spec).exists():
        raise InputError(_wrong_input(spec).read_text())
    if spec.rejected.exists():
        raise CheckFailed.of(spec)
    raise JobDied(f"{spec.address}: the job {ended}")


def _wrong_input(spec: JobSpec) -> Path:
    return spec.work / "wrong_input.txt"
