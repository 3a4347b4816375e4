"""Prepare a training set of referring expressions: as prepare_sa1b, one row an image with its records.

Records of the split `train` whose image is in a prepared benchmark are quarantined; that is why this stage
reads the output of prepare_benchmark.
"""

from pydantic import Field

from jobs.preparation.benchmark_images import read_benchmark_images
from jobs.preparation.prepare import prepare
from jobs.preparation.referring import REFERRING
from jobs.preparation.settings import ContractConfig, DatasetConfig, ImagesConfig, settings_of
from jobs.runner.context import JobConfig, StageContext, StageReport


class Config(JobConfig):
    datasets: dict[str, DatasetConfig] = Field(description="settings of each data set, by partition key")
    contract: ContractConfig = Field(
        default=ContractConfig(), description="when a data set is refused as a whole, and when an image is"
    )
    images: ImagesConfig = Field(default=ImagesConfig(), description="how images are stored")


def run(config: Config, context: StageContext) -> StageReport:
    """Prepare the data set of the partition."""
    settings = settings_of(config.datasets, "prepare_referring.datasets", context.partition)
    folder = context.inputs["acquire_referring"] / (context.partition or "")
    return prepare(
        REFERRING,
        folder,
        settings.held_out_share,
        config.contract,
        context,
        settings.selection,
        config.images,
        benchmarks=read_benchmark_images(context.inputs["prepare_benchmark"]),
    )


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("prepare_referring")
