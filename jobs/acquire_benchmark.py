"""Acquire one evaluation set, of referring expressions or of questions, in its publisher's format.

Sample scenes are drawn from random streams of their own, so that none is a training scene too. The
folder is laid out as in acquire_referring or, with images anywhere in it,
- `pope`: `coco_pope_random.json`, `coco_pope_popular.json`, `coco_pope_adversarial.json`;
- `vqav2`: `v2_OpenEnded_mscoco_*_questions.json` and `v2_mscoco_*_annotations.json`;
- `mme`: a folder a subtask, with images and `.txt`.
"""

from pydantic import Field

from jobs.acquisition.referring import acquire
from jobs.acquisition.settings import DatasetConfig
from jobs.runner.context import JobConfig, StageContext, StageReport


class Config(JobConfig):
    benchmarks: dict[str, DatasetConfig] = Field(description="settings of each benchmark, by partition key")


def run(config: Config, context: StageContext) -> StageReport:
    """Draw or copy the benchmark of the partition."""
    return acquire(config.benchmarks, "benchmark", "acquire_benchmark.benchmarks", context)


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("acquire_benchmark")
