"""What the figures of the stages' reports mean: names (regular expressions) in the order they are looked up.

`report.json` of a stage's output has them; Dagster shows them as metadata, MLflow as metrics.
"""

import re

_QUALITY = {
    "giou": "gIoU of the answers",
    "ciou": "cIoU of the answers",
    "boundary_iou": "mean boundary IoU of the answers",
    "mean_length": "mean number of codes in an answer with a mask",
    "malformed": "share of answers that cannot be read as a mask or as none",
    "n_acc": "share of questions without a target that were answered so",
    "t_acc": "share of questions with a target that were answered with a mask",
}
_QUALITY_NAMES = "|".join(_QUALITY)
# Beginning of a stage's name -> figures of its report -> meaning, with the unit. Of language models, `start` and
# `before` are before training, `full` and `adaptive` after it by the sort of prompt, `after` with adaptive prompts.
FIGURES: dict[str, dict[str, str]] = {
    "acquire": {
        "shards": "archives acquired",
        "bytes": "size of all shards, in bytes",
        "images": "images",
        "annotation_files": "files that are no images",
        "masks": "masks",
        "objects": "objects drawn",
        "expressions": "expressions",
        "multiple_target_expressions": "expressions that mean several objects",
        "no_target_expressions": "expressions that mean none",
        "ambiguous_share": "share of expressions for one object that need a relation or a second attribute",
    },
    "prepare": {
        "(rows|images|masks|questions)_read": "such things in the raw data",
        "rows_of_other_splits": "rows of splits that are not asked for; not read",
        "(rows|images|masks|questions)_accepted": "such things that keep the contract",
        "rows_quarantined": "rows that break the contract",
        "quarantined_share": "rows_quarantined / rows_read",
        "images_[A-Za-z0-9_]+": "accepted images of that split",
    },
    "base_weights": {
        "(altollm|tokenizer)_source": "where the weights that training starts from come from; `none`: there are none",
        "(altollm|tokenizer)_(sha256|licence)": "of these weights",
    },
    "tokenizer": {
        "iou": "mean IoU of held-out masks and their decoded codes (stage 1: all codes; later: predicted number)",
        "boundary_iou": "the same for the boundary",
        "(full_iou|full_length_iou)": "IoU with all codes",
        "fixed_iou": "IoU with one number of codes for all masks, the mean one",
        "adaptive_gain": "IoU at predicted lengths minus IoU at one length for all, of the same mean",
        "adaptive_(iou|boundary_iou|iou_whole_image)": "IoU at predicted lengths",
        "iou_(whole_image|crop)": "IoU of masks in whole images, in crops",
        "iou_[0-9]+_codes": "IoU with so many codes",
        "mean_length": "mean number of codes that the model predicts a mask needs",
        "length_complexity": "rank correlation (Spearman) of predicted length and contour length",
        "codebook_usage": "share of the codebook's entries in use",
        "oracle_regret": "codes kept beyond the least number within `oracle_tolerance` of the full IoU",
        "oracle_iou_regret": "IoU lost against that number of codes",
        "(mean_mask|all_zero|all_one|untrained)_iou": "IoU of a trivial answer",
        "(masks|masks_evaluated)": "held-out masks measured",
        "limit": "images measured at most",
        "steps": "training steps",
    },
    "mask_tokens": {
        "masks": "masks coded",
        "full_iou": "mean IoU of the masks decoded from all codes, at image resolution",
        "adaptive_iou": "the same from the kept codes",
        "mean_length": "mean number of kept codes",
        "max_length": "codes of a mask, at most",
        "codebook_usage": "share of the codebook's entries in use",
    },
    "altollm": {
        **{f"(start|full|adaptive|before|after)_{name}": meaning for name, meaning in _QUALITY.items()},
        "train_(images|records)": "images, records trained on",
        "val_questions": "held-out questions measured",
        "mean_length_change": "relative change of the mean length by GRPO",
        "giou_change": "gIoU after GRPO minus before",
    },
    "grpo_sweep": {"length_weight": "weight of brevity in the reward; the others as for altollm_grpo"},
    "benchmark": {
        "limit": "images measured at most",
        "images": "images measured",
        "(expressions|questions)": "questions asked",
        f".+_({_QUALITY_NAMES})": "of that system (in the report: benchmark and system), adaptive prompts",
        ".+_(accuracy|precision|recall|f1|yes_share|overall|perception|cognition)": "official figure of a question set",
        "tokenizer_iou": "IoU of the mask tokenizer at predicted lengths",
        ".+_coverage": "whether all of a benchmark was measured",
        "baselines_beaten": "comparisons with trivial baselines won for sure, of how many",
    },
}


def group_of(stage: str) -> str:
    """Whose figures a stage has: the longest beginning of its name."""
    return max((beginning for beginning in FIGURES if stage.startswith(beginning)), key=len)


def meaning_of(stage: str, figure: str) -> str | None:
    """None where nobody has written it down."""
    figures = FIGURES[group_of(stage)] | (FIGURES["altollm"] if stage == "grpo_sweep" else {})
    return next((meaning for name, meaning in figures.items() if re.fullmatch(name, figure)), None)
