"""GRPO once more with another weight of brevity: a point of the curve of quality over length.

Optional: a partition of the stage is a weight, and `grpo_sweep.length_weights` in partitions.yaml lists none by
default. Everything else is as `altollm_grpo` is told. What is kept are figures and curves, not the model.
"""

import math
from dataclasses import replace

from data_contracts.errors import InputError
from jobs.altollm_pictures import save_curves
from jobs.grpo_training.settings import GrpoConfig
from jobs.grpo_training.training import run_grpo
from jobs.runner.context import StageContext, StageReport
from jobs.training_curves import save_curve_table

Config = GrpoConfig


def run(config: Config, context: StageContext) -> StageReport:
    weight = length_weight(context.partition)
    reward = config.reward.model_copy(update={"length": weight})
    report = run_grpo(config.model_copy(update={"reward": reward}), context).report
    save_curve_table(context)
    save_curves(context)
    return replace(
        report,
        figures={"length_weight": weight, **report.figures},
        checks=tuple(replace(check, blocking=False) for check in report.checks),
    )


def length_weight(partition: str | None) -> float:
    """Weight of the length in the reward. Raises InputError where the partition is not a number >= 0."""
    try:
        weight = float(partition or "")
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise InputError(
            f"grpo_sweep.length_weights in partitions.yaml: {partition!r} is not a weight, a number of at least 0"
        )
    return weight


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("grpo_sweep")
