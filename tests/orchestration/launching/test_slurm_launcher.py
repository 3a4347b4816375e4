"""What the Slurm launcher makes of the answers of Slurm's commands; tests/cluster asks a real Slurm."""

from pathlib import Path

import pytest

from data_contracts.errors import InputError
from orchestration.launching.interface import JobHandle, JobPhase, JobStatus, LaunchFailed
from orchestration.launching.slurm import launcher as slurm_launcher
from orchestration.launching.slurm.launcher import SlurmLauncher

HANDLE = JobHandle("alto-job", "7")
AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole search path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(slurm_launcher, "SECONDS_UNREACHABLE", 0.0)
    return folder


def answers(folder: Path, command: str, output: str = "", error: str = "", status: int = 0) -> None:
    (folder / f"{command}.out").write_text(output)
    (folder / f"{command}.err").write_text(error)
    script = f'#!/bin/sh\n/bin/cat "{folder}/{command}.out"; /bin/cat "{folder}/{command}.err" >&2; exit {status}\n'
    (folder / command).write_text(script)
    (folder / command).chmod(0o755)


def controller_line(state: str, exit_code: str, reason: str = "None", nodes: str = "gpu[01-02]") -> str:
    return (
        f"JobId=7 JobName=alto-job JobState={state} Reason={reason} ExitCode={exit_code} NodeList={nodes}\n"
    )


@pytest.mark.parametrize(
    ("state", "exit_code", "phase", "code"),
    [
        ("PENDING", "0:0", JobPhase.PENDING, None),
        ("REQUEUED", "0:0", JobPhase.PENDING, None),
        ("RUNNING", "0:0", JobPhase.RUNNING, None),
        ("COMPLETING", "0:0", JobPhase.RUNNING, None),
        ("COMPLETED", "0:0", JobPhase.SUCCEEDED, 0),
        ("FAILED", "2:0", JobPhase.FAILED, 2),
        ("FAILED", "0:9", JobPhase.FAILED, -9),
        ("CANCELLED", "0:15", JobPhase.CANCELLED, -15),
        ("TIMEOUT", "0:0", JobPhase.TIMED_OUT, 0),
        ("PREEMPTED", "0:0", JobPhase.PREEMPTED, 0),
        ("NODE_FAIL", "0:0", JobPhase.NODE_FAILED, 0),
        ("BOOT_FAIL", "0:0", JobPhase.NODE_FAILED, 0),
        ("OUT_OF_MEMORY", "0:125", JobPhase.OUT_OF_MEMORY, -125),
        ("NEW_STATE", "0:0", JobPhase.UNKNOWN, None),
    ],
)
def test_states_of_the_controller(
    commands: Path, tmp_path: Path, state: str, exit_code: str, phase: JobPhase, code: int | None
) -> None:
    answers(commands, "scontrol", controller_line(state, exit_code))
    status = SlurmLauncher(tmp_path).status(HANDLE)
    assert (status.phase, status.exit_code, status.nodes) == (phase, code, "gpu[01-02]")


def test_reasons_are_passed_on(commands: Path, tmp_path: Path) -> None:
    answers(commands, "scontrol", controller_line("PENDING", "0:0", "QOSMaxGRESPerUser", "(null)"))
    assert SlurmLauncher(tmp_path).status(HANDLE) == JobStatus(
        phase=JobPhase.PENDING, reason="QOSMaxGRESPerUser"
    )
    answers(commands, "scontrol", controller_line("TIMEOUT", "0:0", "TimeLimit"))
    reason = SlurmLauncher(tmp_path).status(HANDLE).reason
    assert reason == "ended TIMEOUT on gpu[01-02]: TimeLimit"


def test_a_launch_that_failed_is_the_nodes_failure(commands: Path, tmp_path: Path) -> None:
    answers(commands, "scontrol", controller_line("FAILED", "0:9", "JobLaunchFailure"))
    assert SlurmLauncher(tmp_path).status(HANDLE).phase is JobPhase.NODE_FAILED


def test_a_job_that_slurm_holds_back_after_a_failed_launch_is_cancelled_to_be_submitted_anew(
    commands: Path, tmp_path: Path
) -> None:
    answers(commands, "scontrol", controller_line("PENDING", "0:0", "launch_failed_requeued_held", "(null)"))
    answers(commands, "scancel", error=AWAY, status=1)
    assert SlurmLauncher(tmp_path).status(HANDLE).phase is JobPhase.UNKNOWN
    answers(commands, "scancel")
    assert SlurmLauncher(tmp_path).status(HANDLE).phase is JobPhase.NODE_FAILED


def test_accounting_is_asked_for_a_forgotten_job(commands: Path, tmp_path: Path) -> None:
    answers(commands, "scontrol", error="slurm_load_jobs error: Invalid job id specified", status=1)
    answers(commands, "sacct", "CANCELLED by 1000|0:15|gpu01\n")
    status = SlurmLauncher(tmp_path).status(HANDLE)
    assert (status.phase, status.nodes) == (JobPhase.CANCELLED, "gpu01")
    answers(commands, "sacct", error="Slurm accounting storage is disabled", status=1)
    assert SlurmLauncher(tmp_path).status(HANDLE).phase is JobPhase.FORGOTTEN


def test_a_controller_that_does_not_answer_leaves_everything_open(commands: Path, tmp_path: Path) -> None:
    for command in ("scontrol", "squeue", "scancel"):
        answers(commands, command, error=AWAY, status=1)
    launcher = SlurmLauncher(tmp_path)
    assert launcher.status(HANDLE) == JobStatus(phase=JobPhase.UNKNOWN, reason=AWAY)
    # Taking it for "there is none" would start a second job beside a live one.
    for ask in (lambda: launcher.find("alto-job"), launcher.jobs, lambda: launcher.cancel(HANDLE)):
        with pytest.raises(LaunchFailed, match="Unable to contact"):
            ask()


def test_a_job_is_looked_at_now_and_then(commands: Path, tmp_path: Path) -> None:
    answers(commands, "scontrol", controller_line("RUNNING", "0:0"))
    launcher = SlurmLauncher(tmp_path)
    first = launcher.status(HANDLE)
    answers(commands, "scontrol", controller_line("COMPLETED", "0:0"))
    assert launcher.status(HANDLE) is first


def test_only_jobs_of_this_work_tree_are_listed(commands: Path, tmp_path: Path) -> None:
    ours, others = tmp_path / ".work/a", tmp_path.parent / "other/.work/a"
    answers(commands, "squeue", f"1|alto-one|{ours}\n2|alto-two|{others}\n3|mine|{ours}\n4|alto-three|\n")
    assert SlurmLauncher(tmp_path).jobs() == [JobHandle("alto-one", "1", ours)]


def test_a_machine_without_slurm_says_so(commands: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="squeue is not on this machine: launcher slurm needs Slurm's commands"
    ):
        SlurmLauncher(tmp_path).jobs()
