"""The parts of an InternVL, to be trained or left as they are."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, get_args

from torch import nn

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration

Part = Literal["vision_tower", "projector", "language_model"]
PARTS: tuple[Part, ...] = get_args(Part)


def freeze(model: "InternVLForConditionalGeneration", frozen: Collection[Part]) -> None:
    """Let only the other parts learn.

    What comes before the first part that learns needs no gradients, so autograd keeps nothing of it.
    """
    modules: dict[Part, list[nn.Module]] = {
        "vision_tower": [model.model.vision_tower],
        "projector": [model.model.multi_modal_projector],
        "language_model": [model.model.language_model, model.lm_head],
    }
    for part, mine in modules.items():
        for module in mine:
            module.requires_grad_(part not in frozen)


def checkpoint_gradients(model: "InternVLForConditionalGeneration", wanted: bool) -> None:
    """Whether training keeps only the inputs of each layer, and computes the rest again on the way back."""
    if wanted:
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()
