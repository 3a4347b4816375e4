"""A process that is asked to stop: at once, where it can go on later, or by passing it on."""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from data_contracts.errors import JobStopped
from jobs.runner.stopping import STOP_SIGNALS, StopRequest


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    request = StopRequest()
    request.listen()
    yield request
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_outside_training_it_ends_at_once_and_only_once(stop: StopRequest, number: signal.Signals) -> None:
    with pytest.raises(JobStopped, match=number.name):
        os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # while it cleans up
    assert stop()


def test_errors_handled_on_the_way_do_not_hide_it(stop: StopRequest) -> None:
    with pytest.raises(JobStopped), contextlib.suppress(Exception):
        os.kill(os.getpid(), signal.SIGTERM)


def test_while_it_trains_it_is_only_told(stop: StopRequest) -> None:
    answers = [stop()]

    def train() -> None:
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGUSR1)
            answers.append(stop())

    with pytest.raises(JobStopped):
        train()
    assert answers == [False, True]


def test_it_is_passed_on_once(stop: StopRequest) -> None:
    calls = []
    with stop.passed_on(lambda: calls.append("asked")):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
    assert calls == ["asked"]
    assert stop()
