"""What several tests of housekeeping share: settings, a later day, and an end in the middle."""

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestration.housekeeping.part import Part
from orchestration.housekeeping.rules import SECONDS_A_DAY, Verdict
from orchestration.housekeeping.run import clean
from orchestration.housekeeping.settings import Retention, read_retention

ROOT = Path(__file__).resolve().parents[3]


def retention(**sections: Any) -> Retention:
    """The shipped settings, with these sections in place of theirs."""
    return Retention.model_validate(read_retention(ROOT).model_dump() | sections)


def in_days(days: float) -> float:
    return time.time() + days * SECONDS_A_DAY


def names(verdicts: Sequence[Verdict], kind: str, *, removed: bool = True) -> set[str]:
    return {one.found.key.name for one in verdicts if one.found.key.kind == kind and one.removed == removed}


def why(verdicts: Sequence[Verdict], kind: str, name: str) -> str:
    (verdict,) = (one for one in verdicts if one.found.key == (kind, name))
    return verdict.why


def clean_and_be_killed(
    part: Callable[[], Part], patch: pytest.MonkeyPatch, where: Any, call: str, time: int, now: float
) -> None:
    """Delete in a process of its own, which is killed right after that call of `where.call`."""

    def run() -> None:
        patch.setattr(where, call, killing(getattr(where, call), time))
        clean(part(), 1.0, now, delete=True)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def killing(real: Callable[..., object], time: int) -> Callable[..., object]:
    calls = itertools.count(1)

    def call(*arguments: object, **keywords: object) -> object:
        result = real(*arguments, **keywords)
        if next(calls) == time:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call
