"""Prepare an evaluation set, of referring expressions as prepare_referring or of questions; training never reads it."""

from pydantic import Field

from jobs.formats.dataset import format_of
from jobs.preparation.prepare import prepare
from jobs.preparation.referring import REFERRING
from jobs.preparation.settings import ContractConfig, DatasetConfig, settings_of
from jobs.preparation.vqa import VQA
from jobs.runner.context import JobConfig, StageContext, StageReport


class Config(JobConfig):
    benchmarks: dict[str, DatasetConfig] = Field(description="settings of each benchmark, by partition key")
    contract: ContractConfig = Field(
        default=ContractConfig(), description="when a data set is refused as a whole, and when an image is"
    )


def run(config: Config, context: StageContext) -> StageReport:
    """Prepare the benchmark of the partition."""
    settings = settings_of(config.benchmarks, "prepare_benchmark.benchmarks", context.partition)
    folder = context.inputs["acquire_benchmark"] / (context.partition or "")
    kind = VQA.get(format_of(folder), REFERRING)
    return prepare(kind, folder, settings.held_out_share, config.contract, context, settings.selection)


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("prepare_benchmark")
