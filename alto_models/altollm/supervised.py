"""Cross-entropy of the answers in packed sequences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from alto_models.altollm.mask_loss import MaskLoss, MaskTargets
from alto_models.altollm.network import ImageTokens, hidden_states, image_embeddings
from alto_models.altollm.packing import PackedBatch
from alto_models.training.processes import mean_over_processes

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
        """Weighted mean cross-entropy over all learned tokens of the batch.

        Of several processes, the mean of all their losses is that over all their tokens.
        """
        losses = functional.cross_entropy(self.logits.float(), self.labels, reduction="none")
        return (losses * self.weights).sum() / mean_over_processes(self.weights.sum())

    @property
    def token_accuracy(self) -> Tensor:
        return (self.logits.argmax(1) == self.labels).float().mean()


def score_answers(
    model: "InternVLForConditionalGeneration", image: ImageTokens, batch: PackedBatch
) -> AnswerScores:
    """Logits of the answer tokens only: the vocabulary is never multiplied out for prompts and padding.

    image: one a row.
    """
    batch = batch.to(model.device)
    return score_hidden(model, hidden_states(model, image, batch), batch)


def score_hidden(
    model: "InternVLForConditionalGeneration", hidden: Tensor, batch: PackedBatch
) -> AnswerScores:
    """As `score_answers`, from the last hidden states (B, T, width)."""
    batch = batch.to(hidden.device)
    return AnswerScores(
        logits=model.lm_head(hidden.flatten(0, 1).index_select(0, batch.learned - 1)),
        labels=batch.labels.flatten().index_select(0, batch.learned),
        weights=batch.weights.flatten().index_select(0, batch.learned),
    )


class SupervisedLoss(nn.Module):
    """From pixels and token ids to the loss: all of a step's forward pass in one module, so that it can be wrapped."""

    def __init__(self, model: "InternVLForConditionalGeneration", mask_loss: MaskLoss | None = None) -> None:
        super().__init__()
        self.model = model
        self._mask_loss = mask_loss

    def forward(
        self,
        pixels: Tensor,
        batch: PackedBatch,
        targets: MaskTargets | None = None,
        tiles: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """`loss` and figures to log, scalars.

        pixels: (tiles of all sequences in order, 3, S, S), normalised, one image a sequence. tiles: how many each has,
        None for one. targets: of the mask loss, where there is one. Raises ImageTokensError as `hidden_states`.
        """
        embeddings = image_embeddings(self.model, pixels)
        image = [one.flatten(0, 1) for one in embeddings.split(list(tiles or [1] * len(pixels)))]
        scores = score_answers(self.model, image, batch)
        figures = {"loss": scores.loss, "token_accuracy": scores.token_accuracy}
        if self._mask_loss is None or targets is None:
            return figures
        masks = self._mask_loss(scores.logits, targets)
        return figures | {"loss": scores.loss + masks.pop("mask_loss"), "cross_entropy": scores.loss} | masks
