"""The model that KL holds a policy to: a second language model that is not on the device while the policy is."""

from collections.abc import Iterator
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
    """

    def __init__(self, model: "InternVLForConditionalGeneration") -> None:
        self._parameters = language_parameters(model)
        self._kept = [_host_copy(parameter) for parameter in self._parameters]

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
        for index, parameter in enumerate(self._parameters):
            kept = self._kept[index]
            if parameter.device == kept.device:
                self._kept[index], parameter.data = parameter.data, kept
            else:  # one tensor at a time, so the device holds no more than one beside the model
                leaving = parameter.detach().clone()
                parameter.copy_(kept, non_blocking=True)
                kept.copy_(leaving, non_blocking=True)


def _host_copy(parameter: nn.Parameter) -> Tensor:
    copy = torch.empty_like(parameter, device="cpu", requires_grad=False, pin_memory=parameter.is_cuda)
    return copy.copy_(parameter.detach())
