"""How a job that was started as a process tells its launcher what ended it; torchrun passes on no exit status."""

import json
import shutil
from pathlib import Path

from data_contracts.errors import InputError
from jobs.runner.check_failed import CheckFailed, failed_checks
from jobs.runner.job_spec import REJECTED, JobSpec
from jobs.runner.stopping import STATUS_STOPPED
from jobs.runner.whole_file import write_whole

STATUS_DIED, STATUS_WRONG_INPUT, STATUS_CHECK_FAILED = 1, 2, 3
# Of a job without a shared work tree, which may be able to say no more than this (as in sysexits.h).
STATUS_STORAGE_LOST, STATUS_NO_EXCHANGE = 69, 77
WRONG_INPUT = "wrong_input.txt"  # in a work folder


class JobDied(Exception):
    """The job ended without saying why: killed, out of memory, or an error in the code."""


class StoppedEarly(JobDied):
    """The job was asked to stop and did: with what it had saved, another run goes on."""


def forget_verdict(spec: JobSpec) -> None:
    """Before a job is started."""
    _finished(spec).unlink(missing_ok=True)
    spec.returned.unlink(missing_ok=True)
    _wrong_input(spec).unlink(missing_ok=True)
    forget_stopped(spec)
    shutil.rmtree(spec.rejected, ignore_errors=True)


def leave_finished(spec: JobSpec) -> None:
    """Say that the result in `spec.staging` is complete: its files and their sizes."""
    marker = {"fingerprint": spec.fingerprint, "files": _sizes(spec.staging)}
    write_whole(_finished(spec), json.dumps(marker))


def is_finished(spec: JobSpec) -> bool:
    """Whether the job has left its whole result; on a network file system, files may be seen later than the marker."""
    if spec.work_tree == "staged":
        return spec.returned.exists()
    if not _finished(spec).exists():
        return False
    marker = json.loads(_finished(spec).read_text())
    return marker == {"fingerprint": spec.fingerprint, "files": _sizes(spec.staging)}


def leave_verdict(spec: JobSpec, error: InputError | CheckFailed) -> None:
    """A failed check leaves its rejected result; wrong input its line."""
    if isinstance(error, InputError):
        _wrong_input(spec).write_text(str(error))


def leave_stopped(spec: JobSpec, reason: str) -> None:
    """The job ended because it was asked to; the first reason stays."""
    if not _stopped(spec).exists():
        _stopped(spec).write_text(reason)


def forget_stopped(spec: JobSpec) -> None:
    _stopped(spec).unlink(missing_ok=True)


def verdict_status(spec: JobSpec) -> int:
    """Exit status for what a job that failed has left."""
    if _wrong_input(spec).exists():
        return STATUS_WRONG_INPUT
    if spec.rejected.exists():
        return STATUS_CHECK_FAILED
    return STATUS_STOPPED if _stopped(spec).exists() else STATUS_DIED


def raise_verdict(spec: JobSpec, ended: str) -> None:
    """Raise what a job that failed has left: InputError, CheckFailed, StoppedEarly, or else JobDied saying how it
    `ended`."""
    if _wrong_input(spec).exists():
        raise InputError(_wrong_input(spec).read_text())
    if spec.rejected.exists():
        raise CheckFailed.of(spec)
    if _stopped(spec).exists():
        raise StoppedEarly(f"{spec.address}: {_stopped(spec).read_text()}; run again, it goes on from there")
    raise JobDied(f"{spec.address}: the job {ended}")


def read_refusal(work: Path) -> str:
    """Why the job of a work folder would end the same again (wrong input, a failed check); empty where it would not."""
    if (wrong_input := work / WRONG_INPUT).exists():
        return wrong_input.read_text()
    report = work / REJECTED / "report.json"
    return failed_checks(json.loads(report.read_text())) if report.exists() else ""


def _wrong_input(spec: JobSpec) -> Path:
    return spec.work / WRONG_INPUT


def _finished(spec: JobSpec) -> Path:
    return spec.work / "finished.json"


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _stopped(spec: JobSpec) -> Path:
    return spec.work / "stopped.txt"
