"""ALToLLM assets."""

from assets.described import Guide
from assets.stage_asset import StageAsset, StageCheck
from assets.tokenizer import TRAINING_HEALTH

ASSETS = (
    StageAsset(
        stage="altollm_sft",
        group="altollm",
        description="ALToLLM after supervised fine-tuning: it answers expressions with mask tokens.",
        guide=Guide(
            reads=(
                "images and expressions of `prepare_referring`, their codes in `mask_tokens`, the "
                "tokenizer (mask loss), and a language model in `base_weights` or a new one."
            ),
            good=(
                "the loss falls, `full_giou` is well above `start_giou`, `full_malformed` is near 0, and "
                "the answers in the samples lie on what was asked for."
            ),
            failing=(
                "`training_health` says which: the loss did not fall (learning rate, steps), or too many "
                "answers are malformed (train longer). Out of GPU memory: smaller passes. Stopped or "
                "killed: materialize again."
            ),
            page="docs/training.md",
        ),
        kinds=frozenset({"pytorch", "huggingface"}),
        checks=(TRAINING_HEALTH,),
        needs_gpu=True,
    ),
    StageAsset(
        stage="altollm_grpo",
        group="altollm",
        description="ALToLLM after GRPO: rewarded for IoU and for short masks.",
        guide=Guide(
            reads=(
                "prompts of `prepare_referring`, the model of `altollm_sft`, and the tokenizer that "
                "decodes answers for their reward."
            ),
            good=(
                "the reward rises, `giou_change` is not negative and `mean_length_change` is: masks as "
                "good, with fewer tokens."
            ),
            failing=(
                "`training_health` says which: the reward fell, or answers became malformed (lower the "
                "learning rate, raise the weight of the KL term). Stopped or killed: materialize again."
            ),
            page="docs/training.md",
        ),
        kinds=frozenset({"pytorch", "huggingface"}),
        checks=(TRAINING_HEALTH,),
        needs_gpu=True,
    ),
    StageAsset(
        stage="grpo_sweep",
        group="altollm",
        description="Optional: what GRPO gives with other weights of brevity, the curve of quality over length.",
        guide=Guide(
            reads=(
                "what `altollm_grpo` reads. A partition is a weight of brevity (`alto sweep`); none is "
                "listed by default. No model is kept."
            ),
            good=(
                "over the weights, length falls and quality stays, up to a bend: the weight to choose is "
                "before it."
            ),
            failing="as `altollm_grpo`. Nothing depends on it.",
            page="docs/experiments.md",
        ),
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
