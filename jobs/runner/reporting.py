"""What a job tells Dagster while it runs, through Dagster Pipes; silent outside a Dagster run."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs.runner.metric_log import MetricPoint

SECONDS_BETWEEN_MESSAGES = 10.0


@contextmanager
def report_to_orchestrator() -> Iterator[Callable[[MetricPoint], None]]:
    """A listener for metric points that sends one log line every few seconds."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield lambda point: None
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        last_sent = 0.0

        def send(point: MetricPoint) -> None:
            nonlocal last_sent
            if time.monotonic() - last_sent >= SECONDS_BETWEEN_MESSAGES:
                values = "  ".join(f"{name} {value:.4g}" for name, value in point.values.items())
                pipes.log.info(f"step {point.step}  {values}")
                last_sent = time.monotonic()

        yield send
