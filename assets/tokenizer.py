"""Mask tokenizer assets."""

from assets.described import Guide
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
        guide=Guide(
            reads=(
                "images and masks of `prepare_sa1b` (split `train`), weights to start from in "
                "`base_weights` where there are any."
            ),
            good=(
                "the curves of the losses fall and level off, `codebook_usage` is near 1, `iou` grows "
                "with the number of codes, and the rebuilt masks beside the true ones look alike. A "
                "`smoke` profile learns nothing."
            ),
            failing=(
                "`training_health` says which: a loss that was not finite names the step (lower the "
                "learning rate); a codebook of which little is used needs more data or steps. Stopped or "
                "killed: materialize again, it goes on from its checkpoint."
            ),
            page="docs/training.md",
        ),
        kinds=frozenset({"pytorch"}),
        checks=(TRAINING_HEALTH, BEATS_BASELINES),
        needs_gpu=True,
    ),
    StageAsset(
        stage="tokenizer_stage1_5",
        group="tokenizer",
        description="ALTo stage 1.5: the token length predictor, trained to keep short prefixes for simple masks.",
        guide=Guide(
            reads="the network of `tokenizer_stage1`, frozen, and masks of `prepare_sa1b`.",
            good=(
                "`adaptive_iou` is close to `full_length_iou` while `mean_length` is well below the "
                "number of codes; simple masks get few codes, winding ones many."
            ),
            failing=(
                "`lengths_adapt` that warns: all masks get one length, so raise `steps` or lower "
                "`objective.length_weight`. Stopped or killed: materialize again."
            ),
            page="docs/training.md",
        ),
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
        guide=Guide(
            reads="masks of `prepare_sa1b` that were held out, and the tokenizer of `tokenizer_stage1_5`.",
            good=(
                "the plot of quality against bits lies above every baseline, and length grows with "
                "complexity (`length_complexity` above 0)."
            ),
            failing=(
                "`beats_baselines` that warns: the tokenizer is no better than a mean mask; look at the "
                "curves of `tokenizer_stage1`, train longer."
            ),
            page="docs/experiments.md",
        ),
        kinds=frozenset({"pytorch", "matplotlib"}),
        checks=(BEATS_BASELINES,),
        needs_gpu=True,
    ),
    StageAsset(
        stage="mask_tokens",
        group="altollm",
        description="Every referring mask as codes and predicted length, tokenised once for all later training.",
        guide=Guide(
            reads=(
                "all records of `prepare_referring` with a target, and the tokenizer of `tokenizer_stage1_5`."
            ),
            good=(
                "`adaptive_iou` is what the language model can reach at best; `mean_length` is what its "
                "answers will cost."
            ),
            failing=(
                "`codes_rebuild_masks` that warns: the tokenizer does not carry over to these masks; "
                "compare with `tokenizer_benchmark`."
            ),
            page="docs/training.md",
        ),
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
