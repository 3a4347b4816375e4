"""The parts of one pass of a training step, each with its backward pass, on inputs of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from tests.benchmarks.procedures import Procedure
from tests.benchmarks.sizes import Size


@dataclass(frozen=True, eq=False)
class PassInputs:
    """images (I, 3, S, S) in 0..1; masks (B, 1, M, M), 0 or 1, grouped by image."""

    images: Tensor
    masks: Tensor

    @classmethod
    def zeros(cls, size: Size, masks_per_image: int) -> Self:
        masks, side = size.masks_per_pass, size.ours.pixel_encoder.image_size
        return cls(
            images=torch.zeros(masks // masks_per_image, 3, side, side),
            masks=torch.zeros(masks, 1, size.ours.mask_size, size.ours.mask_size),
        )


def parts_of_a_pass(procedure: Procedure, inputs: PassInputs) -> dict[str, Callable[[], None]]:
    """Name -> forward and backward of that part for the whole pass; "all" is the pass in one."""
    masks = inputs.masks
    embedding = procedure.encode_image(inputs.images)
    learns_images = embedding.requires_grad
    embedding = _leaf(embedding, learns_images)
    slots = _leaf(procedure.slots(masks, embedding)[0])
    logits = _leaf(procedure.logits(slots, embedding))

    def encode_image() -> None:
        _backward(procedure.encode_image(inputs.images))

    def encode_and_detokenize() -> None:
        _backward(*procedure.slots(masks, embedding))

    def mask_head() -> None:
        _backward(procedure.logits(slots, embedding))

    def loss() -> None:
        _backward(procedure.loss(logits, masks.squeeze(1)))

    def everything() -> None:
        procedure.forward_backward(inputs.images, masks)

    return {
        "image": encode_image,
        "transformers": encode_and_detokenize,
        "head": mask_head,
        "loss": loss,
        "all": everything,
    }


def _leaf(value: Tensor, learns: bool = True) -> Tensor:
    return value.detach().clone().requires_grad_(learns)


def _backward(*values: Tensor) -> None:
    learning = [value for value in values if value.requires_grad]
    torch.autograd.backward(learning, [torch.ones_like(value) for value in learning])
