"""Have a job's result: attach to the job where it lives already, else submit it; show its log; say how it ended."""

import codecs
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.runner.job_spec import JobSpec
from jobs.runner.verdict import JobDied, StoppedEarly, forget_verdict, is_finished, raise_verdict
from orchestration.launching.failures import JobFailed, classify
from orchestration.launching.interface import (
    JobHandle,
    JobOrder,
    JobPhase,
    JobStatus,
    Launcher,
    LaunchFailed,
    job_name,
)
from orchestration.launching.job_files import forget_traces, watched_file

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_UNKNOWN = 600.0  # that a scheduler may not answer before we stop watching
SECONDS_TO_SEE_FILES = 60.0  # that a network file system may show a finished result late
BYTES_OF_LOG_KEPT = 2**16  # to say what ended the job

Say = Callable[[str], None]


def live_job(launcher: Launcher, spec: JobSpec) -> JobHandle | None:
    """The job that an earlier run started and that still runs; else what dead ones have left is removed."""
    handle = launcher.find(job_name(spec))
    if handle is None:
        forget_verdict(spec)
        forget_traces(spec.work)
    return handle


def run_job(launcher: Launcher, order: JobOrder, live: JobHandle | None, say: Say) -> None:
    """Return when the job has left its whole result: the live one, or one submitted now.

    Its log is copied to standard output as it grows, and what happens to it goes to `say`, a line each time. The job
    is cancelled when this process is interrupted, and goes on when it is killed. Raises InputError or CheckFailed as
    the job did, JobFailed where it ended otherwise, LaunchFailed where it cannot be started or watched any more.
    """
    handle = live or launcher.submit(order)
    say(f"{'attached to' if live else 'submitted'} {handle.name} ({handle.id})")
    log = _FollowedLog(launcher, handle)
    try:
        status = watch(launcher, order, handle, log, say)
    except Exception:  # the job may still run, and a later run will find it
        raise
    except BaseException:  # how a run is cancelled
        say(f"cancelling {handle.name} ({handle.id})")
        launcher.cancel(handle)
        raise
    raise_for_end(order, status, log.end)


def watch(launcher: Launcher, order: JobOrder, handle: JobHandle, log: "_FollowedLog", say: Say) -> JobStatus:
    """How the job ended. Raises LaunchFailed where nobody can say for SECONDS_UNKNOWN."""
    last: JobStatus | None = None
    known = time.monotonic()
    watched = watched_file(order.spec.work)
    while True:
        watched.touch()
        status = launcher.status(handle)
        if status != last and status.phase is not JobPhase.SUCCEEDED:
            say(" ".join(filter(None, (handle.name, status.phase.value, status.nodes, status.reason))))
        last = status
        log.show()
        if status.phase.is_over:
            return status
        if status.phase is not JobPhase.UNKNOWN:
            known = time.monotonic()
        elif time.monotonic() - known > SECONDS_UNKNOWN:
            raise LaunchFailed(
                f"{handle.name} ({handle.id}): not known for {SECONDS_UNKNOWN:.0f} s what became of it"
                f" ({status.reason}); it may still run, and the next run of the stage attaches to it"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


def raise_for_end(order: JobOrder, status: JobStatus, log_end: str) -> None:
    """Raise what ended the job, unless its result is there; the same exceptions as in the job itself."""
    patience = SECONDS_TO_SEE_FILES if status.phase is JobPhase.SUCCEEDED else 0.0
    deadline = time.monotonic() + patience
    while not is_finished(order.spec):
        if time.monotonic() >= deadline:
            try:
                raise_verdict(order.spec, status.reason)
            except JobDied as died:
                stopped = isinstance(died, StoppedEarly)
                raise JobFailed(classify(order.spec, status, log_end, stopped=stopped)) from None
        time.sleep(SECONDS_BETWEEN_LOOKS)


@dataclass
class _FollowedLog:
    """Copies a job's growing log to standard output, where Dagster's compute log takes it."""

    launcher: Launcher
    handle: JobHandle
    offset: int = field(default=0, init=False)
    end: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(
            "replace"
        ).decode  # a character may arrive in halves

    def show(self) -> None:
        new = self.launcher.log(self.handle, self.offset)
        self.offset += len(new)
        text = self._decode(new)
        self.end = (self.end + text)[-BYTES_OF_LOG_KEPT:]
        sys.stdout.write(text)
        sys.stdout.flush()
