"""Mask tokenizer assets."""

from assets.stage_asset import StageAsset, StageCheck

TRAINING_HEALTH = StageCheck(
    name="training_health",
    description="Losses stayed finite and fell, and what was learned is usable by the stages that follow.",
    blocking=True,
)

BEATS_BASELINES = StageCheck(
    name="beats_baselines",
    description="What was learned is better than every trivial baseline on the same samples.",
)

ASSETS = (
    StageAsset(
        stage="tokenizer_stage1",
        group="tokenizer",
        description="ALTo stage 1: encoder, codebook and de-tokenizer, trained on masks with random kept lengths.",
        kinds=frozenset({"pytorch"}),
        checks=(TRAINING_HEALTH, BEATS_BASELINES),
        needs_gpu=True,
    ),
    StageAsset(
        stage="tokenizer_stage1_5",
        group="tokenizer",
        description="ALTo stage 1.5: the token length predictor, trained to keep short prefixes for simple masks.",
        kinds=frozenset({"pytorch"}),
        checks=(
            TRAINING_HEALTH,
            BEATS_BASELINES,
            StageCheck(
                name="lengths_adapt",
                description="Different held-out masks get different predicted lengths.",
            ),
        ),
        needs_gpu=True,
    ),
    StageAsset(
        stage="tokenizer_benchmark",
        group="tokenizer",
        description="Held-out reconstruction: IoU against tokens and bits, adaptive against fixed lengths, baselines.",
        kinds=frozenset({"pytorch", "matplotlib"}),
        checks=(BEATS_BASELINES,),
        needs_gpu=True,
    ),
    StageAsset(
        stage="mask_tokens",
        group="altollm",
        description="Every referring mask as codes and predicted length, tokenised once for all later training.",
        kinds=frozenset({"pytorch", "parquet"}),
        checks=(
            StageCheck(
                name="codes_rebuild_masks",
                description="Decoding the stored codes gives the masks back at image resolution.",
            ),
        ),
        needs_gpu=True,
    ),
)
