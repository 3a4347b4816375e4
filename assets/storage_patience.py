"""Dagster's database may be away while a job runs: a run waits for it, rather than to be given up.

Dagster itself tries for some 10 s to connect, and then fails the run, be it over one line of its log.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import dagster as dg

SECONDS_AWAY = 600.0
SECONDS_BETWEEN_ATTEMPTS = 1.0
ResultT = TypeVar("ResultT")


def until_answered(action: Callable[[], ResultT]) -> ResultT:
    """Repeat the action while the database is away, for SECONDS_AWAY at most; raises what it raises after that."""
    deadline = time.monotonic() + SECONDS_AWAY
    while True:
        try:
            return action()
        except Exception as error:
            if not _of_the_database(error) or time.monotonic() > deadline:
                raise
            print("waiting for Dagster's database", file=sys.stderr, flush=True)
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)


@contextmanager
def answering_afterwards(instance: dg.DagsterInstance) -> Iterator[None]:
    """However what is inside ends, go on when the database can take down how it did."""
    try:
        yield
    finally:
        until_answered(lambda: instance.get_runs(limit=1))


def _of_the_database(error: Exception) -> bool:
    """SQLAlchemy's own, or what Dagster makes of it."""
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, SQLAlchemyError) or isinstance(error.__cause__, SQLAlchemyError)
