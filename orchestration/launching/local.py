"""Jobs as processes of this machine.

A job writes its log to a file and holds the stage's lock itself, so it goes on if whoever started it dies, and no
other run of the stage starts until it has ended; that one then takes its result.
"""

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel

from jobs.runner.job_spec import JobSpec
from jobs.runner.processes import launch_command
from jobs.runner.stopping import SECONDS_TO_STOP
from jobs.runner.verdict import is_finished
from jobs.runner.whole_file import write_whole
from orchestration.launching.interface import JobHandle, JobOrder, JobPhase, JobStatus
from orchestration.launching.job_files import log_file, read_log

SECONDS_CLOCK_MAY_MOVE = 2.0  # a process's start is told relative to the boot, which follows the clock


class _Started(BaseModel):
    """`local_job.json` in a work folder: which process the job is. created: tells it from a later one of its number."""

    name: str
    pid: int
    created: float

    @property
    def process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < SECONDS_CLOCK_MAY_MOVE
            alive = same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


@dataclass
class LocalLauncher:
    """root: of the project whose jobs these are."""

    root: Path

    def __post_init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, order: JobOrder) -> JobHandle:
        work = order.spec.work
        with log_file(work).open("wb") as log:
            child = subprocess.Popen(
                launch_command(order.spec, order.worker),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **order.environment},
                start_new_session=True,
                pass_fds=[] if order.stage_lock is None else [order.stage_lock],
            )
        started = _Started(name=order.name, pid=child.pid, created=psutil.Process(child.pid).create_time())
        write_whole(_record(work), started.model_dump_json())
        handle = JobHandle(order.name, str(child.pid), work)
        self._children[handle.id] = child
        return handle

    def find(self, name: str) -> JobHandle | None:
        return next((handle for handle in self.jobs() if handle.name == name), None)

    def jobs(self) -> list[JobHandle]:
        found = []
        for depth in ("*/*", "*/*/*"):  # stage, partition where there is one, fingerprint
            for record in sorted((self.root / ".work").glob(f"{depth}/{_record(Path()).name}")):
                started = _started(record.parent)
                if started is not None and started.process is not None:
                    found.append(JobHandle(started.name, str(started.pid), record.parent))
        return found

    def status(self, handle: JobHandle) -> JobStatus:
        if (child := self._children.get(handle.id)) is not None:
            status = child.poll()
            return _status_of(status)
        if handle.work is None or (started := _started(handle.work)) is None:
            return JobStatus(phase=JobPhase.UNKNOWN, reason="has left no record")
        if started.process is not None:
            return JobStatus(phase=JobPhase.RUNNING)
        # Only its parent could have asked for its exit status.
        if is_finished(JobSpec.read(handle.work / "job.json")):
            return JobStatus(phase=JobPhase.SUCCEEDED)
        return JobStatus(phase=JobPhase.FAILED, reason="ended after its launcher, without a result")

    def cancel(self, handle: JobHandle) -> None:
        """Asks the job to stop, which it does with a checkpoint; kills its group after SECONDS_TO_STOP."""
        started = None if handle.work is None else _started(handle.work)
        if started is None or (process := started.process) is None:
            return
        process.terminate()  # not its group: the job needs its helpers until the checkpoint is saved
        try:
            process.wait(SECONDS_TO_STOP)
        except psutil.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, handle: JobHandle, offset: int) -> bytes:
        return read_log(handle.work, offset)


def _started(work: Path) -> _Started | None:
    """None where no job was started, or its folder has just been removed."""
    try:
        return _Started.model_validate_json(_record(work).read_text())
    except FileNotFoundError:
        return None


def _record(work: Path) -> Path:
    return work / "local_job.json"


def _status_of(status: int | None) -> JobStatus:
    if status is None:
        return JobStatus(phase=JobPhase.RUNNING)
    if status == 0:
        return JobStatus(phase=JobPhase.SUCCEEDED, exit_code=0)
    reason = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return JobStatus(phase=JobPhase.FAILED, exit_code=status, reason=reason)
