"""What every launcher can do, and the words for it. Nothing here knows Dagster."""

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from data_contracts.errors import InputError
from jobs.runner.job_spec import JobSpec
from jobs.runner.processes import worker_arguments

LONGEST_NAME = 52  # characters; the 63 of a Kubernetes name, less what is appended for the pods of a job
JOB_NAME = re.compile(r"alto-[a-z0-9-]{1,46}[a-z0-9]")


class JobPhase(Enum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAILED = "node_failed"
    FORGOTTEN = "forgotten"  # whoever knows says that there is no such job, and it has left no result
    UNKNOWN = "unknown"  # whoever knows cannot be asked

    @property
    def is_over(self) -> bool:
        return self not in (JobPhase.PENDING, JobPhase.RUNNING, JobPhase.UNKNOWN)


@dataclass(frozen=True)
class JobHandle:
    """A submitted job. id: the launcher's own (a Slurm job number, a Kubernetes uid, a process).

    work: the job's work folder on this machine, where the launcher knows it.
    """

    name: str
    id: str
    work: Path | None = None


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """exit_code: of the job, once it is over. reason: one line in the launcher's words. nodes: where it ran."""

    phase: JobPhase
    exit_code: int | None = None
    reason: str = ""
    nodes: str = ""


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """All that a launcher needs to submit a job.

    worker: arguments for Python, or for torchrun on each node where there are several processes; they do the work.
    environment: variables that the job gets beside what the site passes on. No secrets: launchers may write them down.
    stage_lock: descriptor of the stage's lock, for a process of this machine to hold.
    """

    name: str
    spec: JobSpec
    worker: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stage_lock: int | None = None

    @classmethod
    def of(cls, spec: JobSpec, environment: Mapping[str, str], stage_lock: int | None = None) -> "JobOrder":
        return cls(
            name=job_name(spec),
            spec=spec,
            worker=tuple(worker_arguments(spec)),
            environment=environment,
            stage_lock=stage_lock,
        )

    @property
    def python(self) -> str:
        return sys.executable


class Launcher(Protocol):
    """Starts jobs somewhere. Raises InputError where an order cannot be met there, LaunchFailed where asking failed."""

    def submit(self, order: JobOrder) -> JobHandle: ...

    def find(self, name: str) -> JobHandle | None:
        """The pending or running job of this name and this work tree."""

    def jobs(self) -> list[JobHandle]:
        """Every pending or running job of this work tree."""

    def status(self, handle: JobHandle) -> JobStatus:
        """UNKNOWN, rather than an exception, where it cannot be asked."""

    def cancel(self, handle: JobHandle) -> None:
        """Ask for the job's end; it may take a moment. Nothing happens to a job that is over."""

    def log(self, handle: JobHandle, offset: int) -> bytes:
        """What the job has written from this byte on."""


class LaunchFailed(Exception):
    """A job could not be submitted, watched or cancelled: the scheduler refused it or cannot be reached."""


def job_name(spec: JobSpec) -> str:
    """`alto-<profile>-<stage>[-<partition>]-<first 12 of the fingerprint>`: a-z, 0-9 and '-', at most 52 characters.

    Equal for equal work, so that a later run finds the job of an earlier one. A middle that is too long is cut and
    ends in a hash of the whole.
    """
    parts = [spec.profile, spec.stage, spec.partition] if spec.partition else [spec.profile, spec.stage]
    middle = re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
    room = LONGEST_NAME - len("alto--") - 12
    if len(middle) > room:
        middle = f"{middle[: room - 7].rstrip('-')}-{hashlib.md5(middle.encode()).hexdigest()[:6]}"
    return checked_name(f"alto-{middle}-{spec.fingerprint[:12]}")


def checked_name(name: str) -> str:
    """Raises InputError for what is no job name, before a shell or path sees it."""
    if not JOB_NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no job name: alto-…, of a-z, 0-9 and '-', at most {LONGEST_NAME} characters"
        )
    return name
