"""Submits, finds, watches and cancels jobs with Slurm's own commands, as the user who runs Dagster or DVC."""

import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from data_contracts.errors import InputError
from jobs.runner.job_spec import JobSpec
from jobs.runner.verdict import is_finished
from orchestration.launching.interface import (
    JOB_NAME,
    JobHandle,
    JobOrder,
    JobPhase,
    JobStatus,
    LaunchFailed,
    checked_name,
)
from orchestration.launching.job_files import read_log
from orchestration.launching.slurm.script import job_script, sbatch_arguments
from orchestration.launching.slurm.settings import SlurmSettings, read_settings

SECONDS_FOR_AN_ANSWER = 60.0
SECONDS_UNREACHABLE = 300.0  # that submitting and finding wait for a controller which is away
UNREACHABLE = re.compile(
    r"[Uu]nable to contact|[Cc]onnection (refused|timed out|reset)|[Ss]ocket timed out|Zero Bytes|DNS SRV|try again"
)

STATES = {
    JobPhase.PENDING: "PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED SPECIAL_EXIT",
    JobPhase.RUNNING: "RUNNING COMPLETING SUSPENDED STOPPED STAGE_OUT SIGNALING RESIZING",
    JobPhase.SUCCEEDED: "COMPLETED",
    JobPhase.FAILED: "FAILED DEADLINE LAUNCH_FAILED RECONFIG_FAIL",
    JobPhase.CANCELLED: "CANCELLED REVOKED",
    JobPhase.PREEMPTED: "PREEMPTED",
    JobPhase.TIMED_OUT: "TIMEOUT",
    JobPhase.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    JobPhase.NODE_FAILED: "NODE_FAIL BOOT_FAIL",
}
NODE_REASONS = ("JobLaunchFailure",)  # of FAILED: the node went away while the job began there
# Of PENDING: the node refused it (prolog.sh), or the controller had forgotten that it ran.
HELD = re.compile(r"launch_failed_requeued_held", re.IGNORECASE)
PHASES = {state: phase for phase, states in STATES.items() for state in states.split()}


class _Unreachable(Exception):
    """The controller did not answer."""


@dataclass
class SlurmLauncher:
    """root: of the project whose jobs these are; the nodes see it under the same path."""

    root: Path
    settings: SlurmSettings = field(default_factory=SlurmSettings)
    _seen: dict[str, tuple[float, JobStatus]] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, root: Path) -> "SlurmLauncher":
        return cls(root, read_settings(root))

    def submit(self, order: JobOrder) -> JobHandle:
        checked_name(order.name)
        script = order.spec.work / "job.sh"
        script.write_text(job_script(order, self.settings, self.root))
        arguments = sbatch_arguments(order, self.settings, self.root, script)
        deadline = time.monotonic() + SECONDS_UNREACHABLE
        while True:
            try:
                answer = _ask(arguments)
                break
            except _Unreachable as error:
                # The order may have arrived although the answer did not.
                if (handle := self.find(order.name)) is not None:
                    return handle
                if time.monotonic() > deadline:
                    raise LaunchFailed(str(error)) from None
            except subprocess.CalledProcessError as error:
                raise InputError(
                    f"{order.spec.address}: Slurm refused the job ({_line(error.stderr)}): see resources.needs and"
                    " infra/slurm/settings.yaml"
                ) from None
        return JobHandle(order.name, answer.strip().split(";")[0], order.spec.work)

    def find(self, name: str) -> JobHandle | None:
        checked_name(name)
        return next((handle for handle in self._queued(f"--name={name}")), None)

    def jobs(self) -> list[JobHandle]:
        return self._queued()

    def status(self, handle: JobHandle) -> JobStatus:
        """As it was seen at most `seconds_between_looks` ago: many runs ask, and the controller is one."""
        seen = self._seen.get(handle.id)
        if seen is None or time.monotonic() - seen[0] > self.settings.seconds_between_looks:
            seen = time.monotonic(), self._look(handle)
            self._seen[handle.id] = seen
        return seen[1]

    def _look(self, handle: JobHandle) -> JobStatus:
        try:
            status = self._status_by_controller(handle)
            if status.phase is JobPhase.PENDING and HELD.search(status.reason):
                _ask(["scancel", handle.id])  # or it would wait for an administrator
                return JobStatus(phase=JobPhase.NODE_FAILED, reason=f"cancelled: {status.reason}")
            return status
        except _Unreachable as error:
            return JobStatus(phase=JobPhase.UNKNOWN, reason=str(error))
        except subprocess.CalledProcessError as error:
            if "Invalid job id" not in error.stderr:
                return JobStatus(phase=JobPhase.UNKNOWN, reason=_line(error.stderr))
        return self._status_by_accounting(handle) or self._status_by_marker(handle)

    def cancel(self, handle: JobHandle) -> None:
        _ask_patiently(["scancel", handle.id])

    def log(self, handle: JobHandle, offset: int) -> bytes:
        return read_log(handle.work, offset)

    def _queued(self, *options: str) -> list[JobHandle]:
        """Pending and running jobs; one that is ending is neither, and its successor waits for it (singleton)."""
        states = "--states=PENDING,RUNNING,CONFIGURING,SUSPENDED,REQUEUED"
        answer = _ask_patiently(["squeue", "--noheader", "--me", states, "--format=%i|%j|%k", *options])
        handles = []
        for line in answer.splitlines():
            number, name, comment = line.strip().split("|", 2)
            work = Path(comment)
            if JOB_NAME.fullmatch(name) and work.is_relative_to(self.root):
                handles.append(JobHandle(name, number, work))
        return handles

    def _status_by_controller(self, handle: JobHandle) -> JobStatus:
        answer = _ask(["scontrol", "--oneliner", "show", "job", handle.id])
        fields = {
            key: found[1] if (found := re.search(rf"(?<!\S){key}=(\S*)", answer)) else ""
            for key in ("JobState", "ExitCode", "Reason", "NodeList")
        }
        reason = "" if fields["Reason"] == "None" else fields["Reason"]
        nodes = "" if fields["NodeList"] == "(null)" else fields["NodeList"]
        return _status(fields["JobState"], fields["ExitCode"], reason, nodes)

    @staticmethod
    def _status_by_accounting(handle: JobHandle) -> JobStatus | None:
        """None where the site has no accounting, or it does not know the job."""
        options = ["--noheader", "--allocations", "--parsable2", "--format=State,ExitCode,NodeList"]
        try:
            lines = _ask(["sacct", *options, f"--jobs={handle.id}"]).splitlines()
        except (_Unreachable, InputError, subprocess.CalledProcessError):
            return None
        if not lines:
            return None
        state, exit_code, nodes = lines[-1].split("|")
        return _status(state.split()[0], exit_code, "", nodes)

    @staticmethod
    def _status_by_marker(handle: JobHandle) -> JobStatus:
        if (
            handle.work is not None
            and (job := handle.work / "job.json").exists()
            and is_finished(JobSpec.read(job))
        ):
            return JobStatus(phase=JobPhase.SUCCEEDED)
        return JobStatus(phase=JobPhase.FORGOTTEN, reason="has left no result")


def _status(state: str, exit_code: str, reason: str, nodes: str) -> JobStatus:
    phase = PHASES.get(state.rstrip("+"), JobPhase.UNKNOWN)
    if phase is JobPhase.FAILED and reason in NODE_REASONS:
        phase = JobPhase.NODE_FAILED
    code, _, number = exit_code.partition(":")
    if not phase.is_over:
        return JobStatus(phase=phase, reason=reason, nodes=nodes)
    if phase is JobPhase.SUCCEEDED:
        return JobStatus(phase=phase, exit_code=0, nodes=nodes)
    ended = f"ended {state}" + (f" on {nodes}" if nodes else "") + (f": {reason}" if reason else "")
    status = -int(number) if number and int(number) else int(code or 0)
    return JobStatus(phase=phase, exit_code=status, reason=ended, nodes=nodes)


def _ask_patiently(arguments: list[str]) -> str:
    """Raises LaunchFailed where the controller stays away or says no."""
    deadline = time.monotonic() + SECONDS_UNREACHABLE
    while True:
        try:
            return _ask(arguments)
        except _Unreachable as error:
            if time.monotonic() > deadline:
                raise LaunchFailed(str(error)) from None
            time.sleep(1.0)
        except subprocess.CalledProcessError as error:
            raise LaunchFailed(_line(error.stderr)) from None


def _ask(arguments: list[str]) -> str:
    """Output of one of Slurm's commands. Raises CalledProcessError where the answer is no."""
    try:
        return subprocess.run(
            arguments, check=True, capture_output=True, text=True, timeout=SECONDS_FOR_AN_ANSWER
        ).stdout
    except FileNotFoundError:
        raise InputError(
            f"{arguments[0]} is not on this machine: launcher slurm needs Slurm's commands, and slurm.conf"
        ) from None
    except subprocess.TimeoutExpired:
        raise _Unreachable(f"{arguments[0]} gave no answer in {SECONDS_FOR_AN_ANSWER:.0f} s") from None
    except subprocess.CalledProcessError as error:
        if UNREACHABLE.search(error.stderr):
            raise _Unreachable(_line(error.stderr)) from None
        raise


def _line(text: str) -> str:
    """The last line: what a command says last is why it gave up."""
    return (text.strip().splitlines() or ["without a reason"])[-1]
