"""The model that KL holds a policy to: a second language model that is not on the device while the policy is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration


def language_parameters(model: "InternVLForConditionalGeneration") -> list[nn.Parameter]:
    """Of the language model and its head, each once; what GRPO trains."""
    return list(dict.fromkeys([*model.model.language_model.parameters(), *model.lm_head.parameters()]))


class ReferenceWeights:
    """A model's language weights as they are when this is made, in host memory (pinned where it has a GPU).

    They take the policy's place for as long as they are needed: at no time are both on the device, and what is
    the same in both (vision tower, projection) exists once. On the processor only pointers are exchanged.

    stored: what of a parameter's values this process keeps, `Training.stored`; of weights that are shared out, each
    process keeps and exchanges its share.
    """

    def __init__(
        self,
        model: "InternVLForConditionalGeneration",
        stored: Callable[[nn.Parameter], Tensor] = lambda parameter: parameter,
    ) -> None:
        self._stored = [stored(parameter) for parameter in language_parameters(model)]
        self._kept = [_host_copy(values) for values in self._stored]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model computes with these weights, without gradients; then the policy's are back, bit for bit."""
        with torch.no_grad():
            self._exchange()
            try:
                yield
            finally:
                self._exchange()

    def _exchange(self) -> None:
        for index, stored in enumerate(self._stored):
            kept = self._kept[index]
            if stored.device == kept.device:
                self._kept[index], stored.data = stored.data, kept
            else:  # one tensor at a time, so the device holds no more than one beside the model
                leaving = stored.detach().clone()
                stored.copy_(kept, non_blocking=True)
                kept.copy_(leaving, non_blocking=True)


def _host_copy(values: Tensor) -> Tensor:
    copy = torch.empty_like(values, device="cpu", requires_grad=False, pin_memory=values.is_cuda)
    return copy.copy_(values.detach())
