"""ALToLLM assets."""

from assets.stage_asset import StageAsset
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
)
