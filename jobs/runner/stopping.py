"""A job is asked to stop by a signal, and ends with a status that says "go on later".

Slurm sends SIGUSR1 some time before it ends a job (time limit, pre-emption), everything else SIGTERM. While a job
trains, it saves a checkpoint after the current step and then ends; at any other time it ends at once, since what
is worth keeping was saved before. Run again with the same inputs, it goes on from there.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from data_contracts.errors import JobStopped

STATUS_STOPPED = 75  # EX_TEMPFAIL of sysexits.h
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
SECONDS_TO_STOP = (
    120  # until a job that was asked to stop is killed: for the step it is in, and its checkpoint
)


class StopRequest:
    """Whether this process was asked to stop. Without `listen`, it never is."""

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._instead: Callable[[], object] | None = None

    def listen(self) -> None:
        """Take the signals, from now on; in the main thread only."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._take)

    def __call__(self) -> bool:
        return self._asked is not None

    @contextmanager
    def passed_on(self, call: Callable[[], object]) -> Iterator[None]:
        """Inside, being asked makes this call and nothing else."""
        self._instead = call
        try:
            yield
        finally:
            self._instead = None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, being asked ends nothing: the one inside looks for it, to end where it can go on later.

        Raises JobStopped at the end if the process was asked meanwhile.
        """
        with self.passed_on(lambda: None):
            yield
        if self._asked is not None:
            raise self._stopped(self._asked)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None:  # a scheduler tells every process of a job, and so does its launcher
            return
        self._asked = signal.Signals(number)
        if self._instead is None:
            raise self._stopped(self._asked)
        self._instead()

    @staticmethod
    def _stopped(number: signal.Signals) -> JobStopped:
        return JobStopped(f"asked to stop ({number.name})")


this_process = StopRequest()
