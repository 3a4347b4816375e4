"""Cross-entropy of the answers in packed sequences."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from alto_models.altollm.network import hidden_states
from alto_models.altollm.packing import IGNORED, PackedBatch

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration


@dataclass(frozen=True, kw_only=True)
class AnswerScores:
    """One entry a learned token, N of them: its logits (N, vocabulary), label (N,) and weight (N,)."""

    logits: Tensor
    labels: Tensor
    weights: Tensor

    @property
    def loss(self) -> Tensor:
        """Weighted mean cross-entropy over all learned tokens of the batch."""
        losses = functional.cross_entropy(self.logits, self.labels, reduction="none")
        return (losses * self.weights).sum() / self.weights.sum()

    @property
    def token_accuracy(self) -> Tensor:
        return (self.logits.argmax(1) == self.labels).float().mean()


def score_answers(
    model: "InternVLForConditionalGeneration", image: Tensor, batch: PackedBatch
) -> AnswerScores:
    """Logits of the answer tokens only: the vocabulary is never multiplied out for prompts and padding.

    image: (B, image tokens, width).
    """
    return score_hidden(model, hidden_states(model, image, batch), batch)


def score_hidden(
    model: "InternVLForConditionalGeneration", hidden: Tensor, batch: PackedBatch
) -> AnswerScores:
    """As `score_answers`, from the last hidden states (B, T, width)."""
    learned = batch.labels[:, 1:] != IGNORED
    return AnswerScores(
        logits=model.lm_head(hidden[:, :-1][learned]),
        labels=batch.labels[:, 1:][learned],
        weights=batch.weights[:, 1:][learned],
    )
