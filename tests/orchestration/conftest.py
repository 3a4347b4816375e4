"""The `alto` command as people run it: arguments and standard input to exit status and output."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestration import cli

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        assert self.status == 0, self.stderr
        return [json.loads(line) for line in self.stdout.splitlines()]


Alto = Callable[..., Result]


@pytest.fixture
def alto(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Alto:
    """Runs `alto` in `folder`, outside any project."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["alto", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        try:
            cli.main()
            status = 0
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        return Result(status, *capsys.readouterr())

    return run


def assert_refused(result: Result, text: str, folder: Path) -> None:
    """One line that says so, exit status 2, and nothing written."""
    assert result.status == 2
    assert result.stderr.startswith("error: ")
    assert text in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert not (folder / "out").exists()


def make_project(folder: Path) -> None:
    for name in ("dvc.yaml", "params.yaml", "partitions.yaml"):
        shutil.copy(ROOT / name, folder)
