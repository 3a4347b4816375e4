"""Prepare a batch of SA-1B shards: sharded Parquet of images with their masks, held to the contract.

The output holds `shard-NNNNN.parquet` (one row an image), `manifest.parquet` (one row an accepted mask),
`quarantine.parquet` (what was rejected and why) and `pictures/`.
"""

from pydantic import Field

from jobs.preparation.prepare import prepare
from jobs.preparation.referenced_shards import with_referenced_shards
from jobs.preparation.sa1b import SA1B
from jobs.preparation.settings import ContractConfig, ImagesConfig
from jobs.runner.context import JobConfig, StageContext, StageReport


class Config(JobConfig):
    held_out_share: float = Field(ge=0, lt=1, description="of the images, chosen by hash of their id")
    contract: ContractConfig = Field(
        default=ContractConfig(), description="when a data set is refused as a whole, and when an image is"
    )
    images: ImagesConfig = Field(default=ImagesConfig(), description="how images are stored")


def run(config: Config, context: StageContext) -> StageReport:
    """Prepare the batch of the partition."""
    folder = context.inputs["acquire_sa1b"] / (context.partition or "")
    kind = with_referenced_shards(SA1B, context)
    return prepare(kind, folder, config.held_out_share, config.contract, context, images=config.images)


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("prepare_sa1b")
