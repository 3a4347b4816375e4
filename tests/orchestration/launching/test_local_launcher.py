"""Jobs as processes of this machine, and how any launcher's job is watched, attached to and taken over."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import InputError
from jobs.runner.layout import StageAddress
from jobs.runner.run import finish
from jobs.runner.stage_lock import StageLock
from jobs.runner.verdict import JobDied, is_finished, leave_finished
from orchestration.launching import watch
from orchestration.launching.interface import JobOrder, JobPhase, JobStatus, LaunchFailed
from orchestration.launching.local import LocalLauncher
from orchestration.launching.watch import live_job, run_job
from tests.orchestration.launching.orders import order

WAIT = "import time; print('on', flush=True); time.sleep(600)"
# What the worker does at its end.
FINISH = """
from pathlib import Path
from jobs.runner.job_spec import JobSpec
from jobs.runner.verdict import leave_finished
spec = JobSpec.read(Path({path!r}))
spec.staging.mkdir()
(spec.staging / 'result').write_text('done')
leave_finished(spec)
print('all done')
"""


def finishing(root: Path, name: str, before: str = "") -> JobOrder:
    unfinished = order(root, name, "")
    code = before + FINISH.format(path=str(unfinished.spec.path))
    return order(root, name, code)


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(watch, "SECONDS_TO_SEE_FILES", 0.1)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


def test_a_result_is_waited_for_and_the_log_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launcher, said = LocalLauncher(tmp_path), []
    job = finishing(tmp_path, "a", before="import os; print(os.environ['PLANTED'], os.getcwd())")
    run_job(launcher, job, None, said.append)
    assert is_finished(job.spec)
    assert capsys.readouterr().out == f"a 'b' $c {tmp_path}\nall done\n"
    assert said[0].startswith(f"submitted {job.name} (")
    assert launcher.jobs() == []


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("raise SystemExit(3)", "ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("pass", "mask_tokens: the job"),
    ],
)
def test_a_job_without_a_result_has_died(tmp_path: Path, code: str, line: str) -> None:
    with pytest.raises(JobDied, match=line):
        run_job(LocalLauncher(tmp_path), order(tmp_path, "a", code), None, print)


def test_a_job_outlives_its_launcher_and_is_attached_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = finishing(tmp_path, "a", before="import time; print('begun', flush=True); time.sleep(1)")
    handle = LocalLauncher(tmp_path).submit(job)
    later, said = LocalLauncher(tmp_path), []  # as in another process, which is not the job's parent
    live = live_job(later, job.spec)
    assert live == handle
    run_job(later, job, live, said.append)
    assert said[0].startswith(f"attached to {job.name}")
    assert capsys.readouterr().out == "begun\nall done\n"
    assert live_job(later, job.spec) is None


def test_an_interrupted_run_cancels_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = LocalLauncher(tmp_path)
    job = order(tmp_path, "a", WAIT)

    def interrupted(*arguments: Any) -> JobStatus:
        wait_until(lambda: launcher.log(launcher.jobs()[0], 0))
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_job(launcher, job, None, print)
    assert launcher.jobs() == []


def test_a_job_that_nobody_can_ask_about_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = LocalLauncher(tmp_path)
    unknown = JobStatus(phase=JobPhase.UNKNOWN, reason="connection refused")
    monkeypatch.setattr(watch, "SECONDS_UNKNOWN", 0.1)
    monkeypatch.setattr(launcher, "status", lambda handle: unknown)
    with pytest.raises(LaunchFailed, match=r"connection refused\); it may still run"):
        run_job(launcher, order(tmp_path, "a", WAIT), None, print)
    (handle,) = launcher.jobs()
    launcher.cancel(handle)
    assert launcher.find(handle.name) is None


def test_a_job_holds_its_stage_while_it_lives(tmp_path: Path) -> None:
    address = StageAddress("mask_tokens")
    launcher = LocalLauncher(tmp_path)
    with StageLock(tmp_path, address) as lock:
        job = order(tmp_path, "a", WAIT)
        job = JobOrder(name=job.name, spec=job.spec, worker=job.worker, stage_lock=lock.fileno())
        handle = launcher.submit(job)
    with (tmp_path / ".work/locks/mask_tokens.lock").open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        launcher.cancel(handle)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_process_of_the_same_number_is_another_job(tmp_path: Path) -> None:
    job = order(tmp_path, "a", "")
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    record = f'{{"name": "{job.name}", "pid": {other.pid}, "created": 1.0}}'
    (job.spec.work / "local_job.json").write_text(record)
    launcher = LocalLauncher(tmp_path)
    assert launcher.jobs() == []
    assert other.poll() is None
    other.send_signal(signal.SIGKILL)
    other.wait()


def test_a_finished_result_is_taken_without_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = order(tmp_path, "a", "").spec
    spec.staging.mkdir()
    (spec.staging / "result").write_text("done")
    leave_finished(spec)
    launched = []
    with StageLock(tmp_path, spec.address) as lock:
        finish(spec, lock, lambda *job: launched.append(job))
        assert launched == []
        assert "taking the finished result of an earlier job" in capsys.readouterr().out
        (spec.staging / "result").write_text("cut")  # as a network file system may show it
        finish(spec, lock, lambda *job: launched.append(job))
    assert len(launched) == 1


def test_what_a_dead_job_left_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    spec = order(tmp_path, "a", "").spec
    (spec.work / "wrong_input.txt").write_text("row 3: wrong")
    (spec.work / "pipes_messages.jsonl").write_text("{}\n")
    (spec.work / "job.log").write_text("old")
    assert live_job(LocalLauncher(tmp_path), spec) is None
    assert sorted(path.name for path in spec.work.iterdir()) == ["job.json"]


def test_wrong_input_is_told_as_such(tmp_path: Path) -> None:
    job = order(
        tmp_path,
        "a",
        "open('.work/mask_tokens/a/wrong_input.txt', 'w').write('row 3: wrong'); raise SystemExit(2)",
    )
    with pytest.raises(InputError, match="row 3: wrong"):
        run_job(LocalLauncher(tmp_path), job, None, print)
