"""Settings of every test process."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

# Several test processes share the machine: one thread each, or they wait for each other's threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# A shell starts background commands with SIGINT ignored. Dagster gives SIGTERM the handler of SIGINT, and processes
# that tests start would inherit that nothing asks them to end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_dagster_instance_of_an_earlier_test() -> Iterator[None]:
    """An instance that was not closed leaves a reference behind, which loading definitions stumbles over."""
    if "dagster" not in sys.modules:
        yield
        return
    from dagster._core.storage.defs_state.base import set_defs_state_storage

    with set_defs_state_storage(None):
        yield
