"""Curves in a stage's output: what was logged, once a step, whatever happened on the way."""

import dataclasses
from pathlib import Path

import pyarrow.parquet as pq

from jobs.training_curves import CURVES_FILE, save_curve_table
from tests.jobs.benchmark_example import stage_context


def test_a_step_logged_again_after_a_kill_counts_once(tmp_path: Path) -> None:
    context = stage_context(tmp_path, "altollm_grpo", None)
    context.log_metrics(5, loss=1.0, kl=0.1)
    context.log_metrics(10, loss=9.0)
    again = dataclasses.replace(context, metric_log=type(context.metric_log)(context.metric_log.path))
    again.log_metrics(10, loss=0.5, mean_length=4.0)
    save_curve_table(again)
    table = pq.read_table(context.output / CURVES_FILE)
    assert table.column_names == ["step", "kl", "loss", "mean_length"]
    assert table.to_pylist() == [
        {"step": 5, "kl": 0.1, "loss": 1.0, "mean_length": None},
        {"step": 10, "kl": None, "loss": 0.5, "mean_length": 4.0},
    ]
