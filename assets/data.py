"""Data assets: acquired in their publishers' formats, then prepared and held against their contracts."""

from assets.described import Guide
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
        guide=Guide(
            reads=(
                "checkpoint folders or published files named in `params.yaml`; the small profiles name "
                "none and start from nothing."
            ),
            good=(
                "`licence` and checksum of each model are those that you expect; `none` where a profile "
                "trains from nothing."
            ),
            failing=(
                "a checksum that differs: compare the file with its publisher's; a folder that is "
                "missing: convert the weights first (`alto convert`)."
            ),
            page="docs/published_weights.md",
        ),
        kinds=frozenset({"huggingface"}),
    ),
    StageAsset(
        stage="acquire_sa1b",
        group="sa1b",
        description="SA-1B shards as published: tar files of images and their mask annotations.",
        guide=Guide(
            reads=(
                "one batch of shards by name (`partitions.yaml`), from a folder, the publisher's links, a "
                "bucket, or drawn scenes (`source: sample`)."
            ),
            good=(
                "the sheet of samples shows photographs with outlines around their objects; `images` and "
                "`masks` are near those of the other batches."
            ),
            failing=(
                "a shard that is not found or damaged is named: fetch it again, and materialize this "
                "partition again. A broken download goes on where it ended."
            ),
            page="docs/own_data.md",
        ),
        kinds=frozenset({"python", "file"}),
    ),
    StageAsset(
        stage="prepare_sa1b",
        group="sa1b",
        description="SA-1B masks as sharded Parquet, every row accepted by the contract or quarantined with a reason.",
        guide=Guide(
            reads=(
                "the acquired shards of the same batch. Each mask is decoded, measured, and held against "
                "the rules of the data contract."
            ),
            good=(
                "`quarantined_share` is near 0, the check `contract` passed, and the pictures show "
                "outlines that lie on their objects. The page of the data shows every broken rule."
            ),
            failing=(
                "`contract` names the rules that were broken, with examples; the rejected result is in "
                "`.work/<stage>/<fingerprint>/rejected`. Mend the shard, or take the batch out of "
                "`partitions.yaml`: training goes on without it."
            ),
            page="docs/data.md",
        ),
        kinds=frozenset({"parquet", "arrow"}),
        checks=(*CONTRACT, LIKE_THE_CHAMPIONS),
    ),
    StageAsset(
        stage="acquire_referring",
        group="referring",
        description="Referring data sets for training, in their publishers' formats (REFER, gRefCOCO, ALToLLM jsonl).",
        guide=Guide(
            reads=(
                "one data set as its publisher ships it (REFER pickles through a restricted reader, "
                "gRefCOCO, jsonl and others), from a folder, links or a bucket."
            ),
            good=(
                "the sheet of samples shows expressions that mean the outlined object; `ambiguous_share` "
                "is low, `no_target_expressions` is as published."
            ),
            failing=(
                "the file and row that cannot be read are named; see which files the format wants, and "
                "materialize this partition again."
            ),
            page="docs/own_data.md",
        ),
        kinds=frozenset({"python", "file"}),
    ),
    StageAsset(
        stage="prepare_referring",
        group="referring",
        description="Referring records as Parquet: image, expressions, target instances and their union.",
        guide=Guide(
            reads=(
                "the acquired data set, and the prepared benchmarks: no image of a benchmark may be "
                "trained on."
            ),
            good=(
                "`quarantined_share` is near 0 and expressions in the pictures mean the outlined objects. "
                "Images that a benchmark has, too, are quarantined, and counted as such."
            ),
            failing=(
                "`contract` names the rules that were broken, with examples; the rejected result is in "
                "`.work/<stage>/<fingerprint>/rejected`. Mend the data set, or raise the limit in "
                "`params.yaml` if the loss is meant."
            ),
            page="docs/data.md",
        ),
        kinds=frozenset({"parquet", "arrow"}),
        checks=(*CONTRACT, LIKE_THE_CHAMPIONS),
    ),
    StageAsset(
        stage="acquire_benchmark",
        group="benchmarks",
        description="Evaluation sets in their publishers' formats.",
        guide=Guide(
            reads=(
                "one evaluation set as its publisher ships it: referring expressions, or questions (POPE, "
                "VQAv2, MME)."
            ),
            good="the counts are those that the publisher states.",
            failing=(
                "the file and row that cannot be read are named; see which files the format wants, and "
                "materialize this partition again."
            ),
            page="docs/benchmarks.md",
        ),
        kinds=frozenset({"python", "file"}),
    ),
    StageAsset(
        stage="prepare_benchmark",
        group="benchmarks",
        description="Evaluation records as Parquet, in the schema of the referring training data.",
        guide=Guide(
            reads="the acquired evaluation set of the same name.",
            good="nothing is quarantined: figures on part of a benchmark compare with nobody's.",
            failing=(
                "`contract` names the rules that were broken; the rejected result is in "
                "`.work/<stage>/<fingerprint>/rejected`. Compare the files with their publisher's."
            ),
            page="docs/benchmarks.md",
        ),
        kinds=frozenset({"parquet", "arrow"}),
        checks=CONTRACT,
    ),
)
