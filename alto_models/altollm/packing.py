"""Several answers that share a beginning, in one sequence.

A sequence is a shared prefix (an image; in GRPO an image and its prompt) and branches (question + answer,
or one sampled answer each). A branch sees the prefix and itself, at the positions it would have if it were
alone: every branch is scored exactly as in a conversation of its own, while the prefix is computed once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from alto_models.training.precision import to_device

IGNORED = -100
PREFIX = 0
PADDED = -1


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Token ids after the prefix; the first `prompt_length` are given, the rest is to be learned.

    weights: of the tokens after the prompt in the loss, () for 1 each; those of weight 0 are given, too.
    """

    ids: Sequence[int]
    prompt_length: int
    weights: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """B sequences of T tokens, padded on the right.

    ids, positions: (B, T) int64. branch: (B, T) int64, `PREFIX`, 1… for the branches, `PADDED`.
    labels: (B, T) int64, the token itself where it is to be learned, else `IGNORED`.
    weights: (B, T) float32, of each learned token in the loss; 0 elsewhere.
    learned, image_places: places of the learned tokens and of the image tokens in the flattened (B x T) batch,
    row by row, so that nobody has to look for them on a device. image_tokens: how many a row has.
    """

    ids: Tensor
    positions: Tensor
    branch: Tensor
    labels: Tensor
    weights: Tensor
    learned: Tensor
    image_places: Tensor
    image_tokens: tuple[int, ...]

    def to(self, device: torch.device) -> Self:
        """All tensors on `device`, copied without waiting for it."""
        moved: dict[str, Any] = {
            field.name: to_device(getattr(self, field.name), device)
            for field in fields(self)
            if field.type is Tensor
        }
        return replace(self, **moved)

    def attention_mask(self) -> Tensor:
        """(B, 1, T, T) bool: True where the token (row) may look at another (column)."""
        length = self.ids.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool, device=self.ids.device).tril()
        row, column = self.branch[:, :, None], self.branch[:, None, :]
        return (earlier & ((column == PREFIX) | (column == row)))[:, None]


def pack(
    prefixes: Sequence[Sequence[int]],
    branches: Sequence[Sequence[Branch]],
    *,
    padding_id: int,
    image_token: int,
) -> PackedBatch:
    """One row a prefix, with its branches in the order given. image_token: id that embeddings go in for."""
    rows = [_row(prefix, mine) for prefix, mine in zip(prefixes, branches, strict=True)]
    length = max(len(row[0]) for row in rows)
    fills = (padding_id, 0, PADDED, IGNORED, 0.0)
    columns = [
        torch.tensor([[*row[index], *[fill] * (length - len(row[0]))] for row in rows])
        for index, fill in enumerate(fills)
    ]
    ids, positions, branch, labels, weights = columns
    image_places = [_places(row[0], lambda token: token == image_token) for row in rows]
    return PackedBatch(
        ids=ids,
        positions=positions,
        branch=branch,
        labels=labels,
        weights=weights,
        learned=_flat([_places(row[3], lambda label: label != IGNORED) for row in rows], length),
        image_places=_flat(image_places, length),
        image_tokens=tuple(len(mine) for mine in image_places),
    )


def _row(prefix: Sequence[int], branches: Sequence[Branch]) -> tuple[list, ...]:
    ids, positions = list(prefix), list(range(len(prefix)))
    number, labels, weights = [PREFIX] * len(prefix), [IGNORED] * len(prefix), [0.0] * len(prefix)
    for index, branch in enumerate(branches, start=1):
        ids += branch.ids
        positions += range(len(prefix), len(prefix) + len(branch.ids))
        number += [index] * len(branch.ids)
        labels += [IGNORED] * branch.prompt_length
        answer = branch.ids[branch.prompt_length :]
        counts = branch.weights or [1.0] * len(answer)
        labels += [token if weight else IGNORED for token, weight in zip(answer, counts, strict=True)]
        weights += [0.0] * branch.prompt_length
        weights += counts
    return ids, positions, number, labels, weights


def _places(tokens: Sequence[int], wanted: Callable[[int], bool]) -> list[int]:
    return [place for place, token in enumerate(tokens) if wanted(token)]


def _flat(places: Sequence[Sequence[int]], length: int) -> Tensor:
    """Places in each row -> (N,) int64 places in the flattened batch of rows of `length`."""
    return torch.tensor(
        [row * length + place for row, mine in enumerate(places) for place in mine], dtype=torch.int64
    )
