"""What a job tells Dagster while it runs, through Dagster Pipes; silent outside a Dagster run."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.runner.context import StageReport
from jobs.runner.metric_log import MetricPoint

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

SECONDS_BETWEEN_MESSAGES = 10.0


class Reporter:
    """Sends lines to the run's log; to none where there is no run."""

    def __init__(self, pipes: "PipesContext | None" = None) -> None:
        self._pipes = pipes
        self._last_sent = 0.0

    def point(self, point: MetricPoint) -> None:
        """One line every few seconds."""
        if self._pipes is not None and time.monotonic() - self._last_sent >= SECONDS_BETWEEN_MESSAGES:
            values = "  ".join(f"{name} {value:.4g}" for name, value in point.values.items())
            self._pipes.log.info(f"step {point.step}  {values}")
            self._last_sent = time.monotonic()

    def result(self, report: StageReport) -> None:
        """Figures and verdicts, before they are recorded as metadata and checks of the asset."""
        if self._pipes is None:
            return
        self._pipes.log.info("  ".join(f"{name} {value}" for name, value in report.figures.items()))
        for check in report.checks:
            say = self._pipes.log.info if check.passed else self._pipes.log.warning
            say(f"check {check.name} {'passed' if check.passed else 'failed'}: {check.reason}")


@contextmanager
def report_to_orchestrator() -> Iterator[Reporter]:
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield Reporter()
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        yield Reporter(pipes)
