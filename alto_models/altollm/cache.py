"""Keys and values of the tokens read so far."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens


class RoomyLayer(DynamicLayer):
    """A cache layer with room for tokens to come: adding one does not copy all that came before.

    keys, values: (B, heads, tokens, width), the filled part of larger buffers. For use without gradients.
    """

    keys: Tensor
    values: Tensor
    _buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add tokens (B, heads, T, width) and return all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < after:
            self._buffers = self._roomy(key_states, after), self._roomy(value_states, after)
            if before:
                self._buffers[0][..., :before, :] = self.keys
                self._buffers[1][..., :before, :] = self.values
        keys, values = self._buffers
        keys[..., before:after, :] = key_states
        values[..., before:after, :] = value_states
        self.keys, self.values = keys[..., :after, :], values[..., :after, :]
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._buffers = None

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._buffers = None

    @staticmethod
    def _roomy(states: Tensor, tokens: int) -> Tensor:
        batch, heads, _, width = states.shape
        return states.new_empty(batch, heads, tokens + ROOM, width)
