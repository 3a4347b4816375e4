"""Dagster's database may be away while a job runs. What the run logs meanwhile is lost; how it ends must not be."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

SECONDS_AWAY = 600.0
SECONDS_BETWEEN_LOOKS = 1.0


@contextmanager
def answering_afterwards(instance: dg.DagsterInstance) -> Iterator[None]:
    """However what is inside ends, go on when the instance's database answers, or has been away for SECONDS_AWAY.

    Dagster drops a line of a log that it cannot write, but gives up a run whose end it cannot write.
    """
    try:
        yield
    finally:
        deadline = time.monotonic() + SECONDS_AWAY
        while time.monotonic() < deadline:
            try:
                instance.get_runs_count()
                break
            except Exception as error:  # whatever the database in use raises
                print(f"waiting for Dagster's database ({type(error).__name__})", file=sys.stderr, flush=True)
                time.sleep(SECONDS_BETWEEN_LOOKS)
