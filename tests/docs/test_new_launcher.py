"""The launcher of docs/new_launcher.md, as it stands there, with a stand-in for ssh that runs commands here."""

import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import InputError
from jobs.runner.job_spec import Needs
from jobs.runner.layout import project_root
from jobs.runner.verdict import JobDied, is_finished
from orchestration.launching import watch
from orchestration.launching.interface import JobPhase, Launcher, LaunchFailed
from orchestration.launching.watch import live_job, run_job
from tests.orchestration.launching.orders import order
from tests.orchestration.launching.test_local_launcher import WAIT, finishing

PAGE = project_root() / "docs" / "new_launcher.md"
SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
exec sh -c "$3"
"""
AWAY = """#!/bin/sh
echo "ssh: connect to host elsewhere: No route to host" >&2
exit 255
"""

LauncherAt = Callable[[Path], Launcher]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Any:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path_factory.mktemp("example") / "ssh_launcher_of_the_docs.py"
    path.write_text(code)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def launcher(example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launcher:
    stand_in(tmp_path, SSH)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(watch, "SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(watch, "SECONDS_TO_SEE_FILES", 0.1)
    return example.SshLauncher(tmp_path, "elsewhere")


def stand_in(root: Path, script: str) -> None:
    path = root / "bin" / "ssh"
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_result_is_waited_for_and_the_log_shown(
    launcher: Launcher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    job = finishing(tmp_path, "a", before="import os; print(os.environ['PLANTED'], os.getcwd())")
    run_job(launcher, job, None, said.append)
    assert is_finished(job.spec)
    assert capsys.readouterr().out == f"a 'b' $c {tmp_path}\nall done\n"
    assert launcher.jobs() == []


def test_a_job_that_fails_says_how(launcher: Launcher, tmp_path: Path) -> None:
    with pytest.raises(JobDied, match="ended with status 7"):
        run_job(launcher, order(tmp_path, "a", "raise SystemExit(7)"), None, print)


def test_a_running_job_is_found_by_its_name_and_cancelled(
    example: Any, launcher: Launcher, tmp_path: Path
) -> None:
    job = order(tmp_path, "a", WAIT)
    handle = launcher.submit(job)
    later = example.SshLauncher(tmp_path, "elsewhere")
    assert live_job(later, job.spec) == handle
    wait_until(lambda: b"on" in later.log(handle, 0))
    assert later.status(handle).phase is JobPhase.RUNNING
    later.cancel(handle)
    wait_until(lambda: later.status(handle).phase.is_over)
    assert later.status(handle).phase is JobPhase.FAILED
    assert live_job(later, job.spec) is None


def test_a_machine_that_does_not_answer(launcher: Launcher, tmp_path: Path) -> None:
    handle = launcher.submit(order(tmp_path, "a", WAIT))
    stand_in(tmp_path, AWAY)
    status = launcher.status(handle)
    assert (status.phase, status.reason) == (
        JobPhase.UNKNOWN,
        "ssh: connect to host elsewhere: No route to host",
    )
    with pytest.raises(LaunchFailed, match="No route to host"):
        launcher.submit(order(tmp_path, "b", WAIT))
    stand_in(tmp_path, SSH)
    launcher.cancel(handle)
    wait_until(lambda: launcher.status(handle).phase.is_over)


def test_what_it_cannot_do_is_refused(launcher: Launcher, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one node"):
        launcher.submit(order(tmp_path, "a", WAIT, Needs(nodes=2)))
