"""Data assets: acquired in their publishers' formats, then prepared and held against their contracts."""

from assets.drift import DRIFT
from assets.stage_asset import StageAsset, StageCheck

CONTRACT = (
    StageCheck(
        name="contract",
        description="The share of rows that break the data contract, and were quarantined, is within its limit.",
        blocking=True,
    ),
    StageCheck(
        name="warnings",
        description="Pictures, masks and expressions that come twice and stay are few.",
    ),
    StageCheck(
        name="expectations",
        description="The accepted rows meet the Great Expectations suite of the same contract (see the Data Docs).",
        blocking=True,
    ),
)

LIKE_THE_CHAMPIONS = StageCheck(
    name=DRIFT,
    description="Statistics are within limits of those of the version that the champion was trained on.",
)

ASSETS = (
    StageAsset(
        stage="base_weights",
        group="base",
        description="Checkpoints that training starts from, with checksum and licence.",
        kinds=frozenset({"huggingface"}),
    ),
    StageAsset(
        stage="acquire_sa1b",
        group="sa1b",
        description="SA-1B shards as published: tar files of images and their mask annotations.",
        kinds=frozenset({"python", "file"}),
    ),
    StageAsset(
        stage="prepare_sa1b",
        group="sa1b",
        description="SA-1B masks as sharded Parquet, every row accepted by the contract or quarantined with a reason.",
        kinds=frozenset({"parquet", "arrow"}),
        checks=(*CONTRACT, LIKE_THE_CHAMPIONS),
    ),
    StageAsset(
        stage="acquire_referring",
        group="referring",
        description="Referring data sets for training, in their publishers' formats (REFER, gRefCOCO, ALToLLM jsonl).",
        kinds=frozenset({"python", "file"}),
    ),
    StageAsset(
        stage="prepare_referring",
        group="referring",
        description="Referring records as Parquet: image, expressions, target instances and their union.",
        kinds=frozenset({"parquet", "arrow"}),
        checks=(*CONTRACT, LIKE_THE_CHAMPIONS),
    ),
    StageAsset(
        stage="acquire_benchmark",
        group="benchmarks",
        description="Evaluation sets in their publishers' formats.",
        kinds=frozenset({"python", "file"}),
    ),
    StageAsset(
        stage="prepare_benchmark",
        group="benchmarks",
        description="Evaluation records as Parquet, in the schema of the referring training data.",
        kinds=frozenset({"parquet", "arrow"}),
        checks=CONTRACT,
    ),
)
