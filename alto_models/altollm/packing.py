"""Several answers that share a beginning, in one sequence.

A sequence is a shared prefix (an image; in GRPO an image and its prompt) and branches (question + answer,
or one sampled answer each). A branch sees the prefix and itself, at the positions it would have if it were
alone: every branch is scored exactly as in a conversation of its own, while the prefix is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    """

    ids: Tensor
    positions: Tensor
    branch: Tensor
    labels: Tensor
    weights: Tensor

    def attention_mask(self) -> Tensor:
        """(B, 1, T, T) bool: True where the token (row) may look at another (column)."""
        length = self.ids.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool, device=self.ids.device).tril()
        row, column = self.branch[:, :, None], self.branch[:, None, :]
        return (earlier & ((column == PREFIX) | (column == row)))[:, None]


def pack(
    prefixes: Sequence[Sequence[int]], branches: Sequence[Sequence[Branch]], padding_id: int
) -> PackedBatch:
    """One row a prefix, with its branches in the order given."""
    rows = [_row(prefix, mine) for prefix, mine in zip(prefixes, branches, strict=True)]
    length = max(len(row[0]) for row in rows)
    fills = (padding_id, 0, PADDED, IGNORED, 0.0)
    columns = [
        torch.tensor([[*row[index], *[fill] * (length - len(row[0]))] for row in rows])
        for index, fill in enumerate(fills)
    ]
    ids, positions, branch, labels, weights = columns
    return PackedBatch(ids=ids, positions=positions, branch=branch, labels=labels, weights=weights)


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
