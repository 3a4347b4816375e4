"""Why a job ended without a result, in one line, and whether another attempt can help (docs/failures.md)."""

import re
from dataclasses import dataclass
from enum import Enum

from jobs.runner.disk_space import TOO_LITTLE
from jobs.runner.job_spec import JobSpec
from jobs.runner.verdict import STATUS_NO_EXCHANGE, STATUS_STORAGE_LOST, JobDied
from orchestration.launching.interface import JobPhase, JobStatus

LINES_LOOKED_AT = 200
LINES_SHOWN = 20


class Cause(Enum):
    """text: what happened. retry: whether another attempt, from the last checkpoint, can help. advice: what to do;
    `{needs}` and `{stage}` are filled in."""

    STOPPED = "was asked to stop", True, "It goes on from its checkpoint."
    CANCELLED = "was cancelled", False, "Run again, it goes on from its checkpoint."
    PREEMPTED = "was pre-empted", True, "It goes on from its checkpoint."
    TIME_LIMIT = (
        "came to its time limit",
        True,
        "It goes on from its checkpoint; {needs}.hours sets the limit.",
    )
    NODE_LOST = "lost its node", True, "It goes on from its checkpoint on another one."
    KILLED = "was killed", True, "Where it happens again, look for the system's out-of-memory killer."
    OUT_OF_MEMORY = "ran out of memory", False, "Raise {needs}.memory_gb, or lower what a process holds."
    GPU_OUT_OF_MEMORY = (
        "ran out of GPU memory",
        False,
        "Lower {stage}.training.*_per_pass, switch gradient_checkpointing on, or share out with deepspeed.",
    )
    DISK_FULL = (
        "found the disk full",
        False,
        "Free space (`alto housekeeping`), then run again: it goes on from its last whole checkpoint.",
    )
    STORAGE_LOST = "lost its object storage", True, "It goes on from its checkpoint when the storage answers."
    NO_EXCHANGE = (
        "could not use its exchange",
        False,
        "Its node needs credentials for it (pass_environment in infra/slurm/settings.yaml, secrets in"
        " infra/kubernetes/settings.yaml) and this version of the project.",
    )
    COMMUNICATION = "lost touch between its processes", True, "It goes on from its checkpoint."
    FORGOTTEN = "was forgotten by its scheduler", True, "It goes on from its checkpoint."
    NOT_STARTED = "could not be started", False, "Its launcher's settings are in infra/ (docs/cluster.md)."
    BUG = "ended with an error", False, "See the end of its log."

    def __init__(self, text: str, retry: bool, advice: str) -> None:
        self.text = text
        self.retry = retry
        self.advice = advice


PHASES = {
    JobPhase.CANCELLED: Cause.CANCELLED,
    JobPhase.PREEMPTED: Cause.PREEMPTED,
    JobPhase.TIMED_OUT: Cause.TIME_LIMIT,
    JobPhase.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
    JobPhase.NODE_FAILED: Cause.NODE_LOST,
}

STATUSES = {
    **dict.fromkeys((-9, 137), Cause.KILLED),
    STATUS_STORAGE_LOST: Cause.STORAGE_LOST,
    STATUS_NO_EXCHANGE: Cause.NO_EXCHANGE,
}

# The first that fits any line decides: where one process dies of the upper ones, the others lose touch with it.
SIGNS = {
    Cause.GPU_OUT_OF_MEMORY: r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED",
    Cause.OUT_OF_MEMORY: r"MemoryError\b|can't allocate memory|Cannot allocate memory|std::bad_alloc|[Oo]ut.of.memory",
    Cause.DISK_FULL: (
        rf"{TOO_LITTLE}|No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing|unexpected pos"
    ),
    Cause.KILLED: r"process \d+ ended first: SIGKILL",
    Cause.STORAGE_LOST: (
        r"EndpointConnectionError|ConnectTimeoutError|ReadTimeoutError|ConnectionClosedError|ServiceUnavailable|SlowDown"
        r"|AWS Error NETWORK_CONNECTION"
    ),
    Cause.COMMUNICATION: (
        r"DistBackendError|DistStoreError|DistNetworkError|Rendezvous\w*Error|collective operation timeout|NCCL error"
        r"|gloo.*(Timed out|closed by peer|reset by peer|Broken pipe|refused)"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """line: one line for a person. log_end: the last lines that the job wrote."""

    cause: Cause
    line: str
    log_end: str


class JobFailed(JobDied):
    """The job ended without a result, for a reason other than its input or a check."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.line)
        self.failure = failure


def classify(spec: JobSpec, status: JobStatus, log: str, *, stopped: bool) -> Failure:
    """stopped: the job itself said that it ended because it was asked to."""
    lines = log.splitlines()[-LINES_LOOKED_AT:]
    cause, sign = _cause(status, lines, stopped)
    advice = cause.advice.format(stage=spec.stage, needs=f"resources.needs.{spec.stage}")
    said = sign or status.reason
    detail = said if status.nodes in said else f"{said} {status.nodes}".strip()
    return Failure(
        cause=cause,
        line=f"{spec.address}: the job {cause.text} ({detail or status.phase.value}). {advice}",
        log_end="\n".join(lines[-LINES_SHOWN:]),
    )


def _cause(status: JobStatus, lines: list[str], stopped: bool) -> tuple[Cause, str]:
    """And the line of the log that says so, if one does."""
    if status.phase in PHASES:
        return PHASES[status.phase], ""
    if stopped:
        return Cause.STOPPED, ""
    # Indented lines quote code, warnings tell of what the job has got over.
    said = [line for line in lines if line[:1].strip() and not line.lower().startswith("warning")]
    for cause, sign in SIGNS.items():
        for line in reversed(said):  # the last error is the one that others led to
            if re.search(sign, line):
                return cause, line[:200]
    if status.exit_code in STATUSES:
        return STATUSES[status.exit_code], ""
    errors = [line for line in said if re.match(r"(\[rank\d+\]: ?)?[\w.]+(Error|Exception|Died)\b", line)]
    if errors:
        return Cause.BUG, errors[-1][:200]
    if status.phase is JobPhase.FORGOTTEN:
        return Cause.FORGOTTEN, ""
    if not lines and status.exit_code is None:  # nothing of the job has ever run
        return Cause.NOT_STARTED, ""
    return Cause.BUG, ""
