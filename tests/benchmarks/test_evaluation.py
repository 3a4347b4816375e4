"""The benchmark of evaluating runs, and asking in batches changes no row."""

from pathlib import Path

import pytest

from tests.benchmarks.evaluation import Evaluation, scene_rows
from tests.benchmarks.harness import interleaved
from tests.benchmarks.test_language_model_benchmarks import TINY


@pytest.mark.slow
def test_batches_change_no_row_and_take_less_than_a_third_of_the_time(tmp_path: Path) -> None:
    """Of networks so small that most of the time is the same whatever their size."""
    evaluation = Evaluation(TINY, scene_rows(tmp_path, 3))
    single, batched = evaluation.samples(1), evaluation.samples(64)
    assert single == batched
    assert len(single) > 10
    seconds = interleaved(
        {"single": lambda: evaluation.samples(1), "batched": lambda: evaluation.samples(64)}, 3
    )
    assert seconds["single"] > 3 * seconds["batched"]
