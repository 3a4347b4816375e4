"""Stage contexts for the tests of acquiring."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.runner.context import StageContext
from jobs.runner.metric_log import MetricLog

ContextOf = Callable[..., StageContext]


@pytest.fixture
def context_of(tmp_path: Path) -> ContextOf:
    """A context of `acquire_sa1b` for these shards, as a first run and each run after a kill gets it."""

    def make(*shards: str) -> StageContext:
        output, work = tmp_path / "run" / "output", tmp_path / "run" / "state"
        if output.exists():
            for path in output.iterdir():
                path.unlink()
        output.mkdir(parents=True, exist_ok=True)
        work.mkdir(exist_ok=True)
        return StageContext(
            stage="acquire_sa1b",
            partition="batch_000",
            partition_items=shards,
            seed=1,
            inputs={},
            output=output,
            work=work,
            metric_log=MetricLog(work / "curves.jsonl"),
        )

    return make
