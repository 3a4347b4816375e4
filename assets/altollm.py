"""ALToLLM assets."""

from assets.stage_asset import StageAsset, StageCheck
from assets.tokenizer import TRAINING_HEALTH

ASSETS = (
    StageAsset(
        stage="altollm_sft",
        group="altollm",
        description="ALToLLM after supervised fine-tuning: it answers expressions with mask tokens.",
        kinds=frozenset({"pytorch", "huggingface"}),
        checks=(TRAINING_HEALTH,),
        needs_gpu=True,
    ),
    StageAsset(
        stage="altollm_grpo",
        group="altollm",
        description="ALToLLM after GRPO: rewarded for IoU and for short masks.",
        kinds=frozenset({"pytorch", "huggingface"}),
        checks=(TRAINING_HEALTH,),
        needs_gpu=True,
    ),
    StageAsset(
        stage="grpo_sweep",
        group="altollm",
        description="Optional: what GRPO gives with other weights of brevity, the curve of quality over length.",
        kinds=frozenset({"pytorch"}),
        checks=(
            StageCheck(
                name="training_health",
                description="The share of malformed answers is within its limit.",
            ),
        ),
        needs_gpu=True,
    ),
)
