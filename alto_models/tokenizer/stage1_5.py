"""Stage 1.5: only the length predictor learns, against the frozen tokenizer.

Two objectives. `chunking` is the paper's: the mask is decoded from softly kept codes, and reconstruction
loss and length loss pull against each other through the straight-through keep mask. `oracle` decodes
prefixes of every mask and teaches the predictor what each length n is worth: its logits are fitted, up to a
constant a mask, to utility / temperature with utility = IoU_n - length_weight * n / L. So the most probable stop
is the length of the best expected utility, and the less it leads, the more the others count.
"""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import mse_loss

from alto_models.tokenizer.length_predictor import expected_length, length_loss, soft_keep_mask
from alto_models.tokenizer.losses import bce_loss, dice_loss
from alto_models.tokenizer.model import Encoding, MaskTokenizer
from alto_models.tokenizer.prefixes import prefix_iou, spread_lengths
from alto_models.tokenizer.stage1 import BatchTensors
from alto_models.training.loop import StepResult


class PredictorSettings(BaseModel):
    """
    objective: the published one (chunking), or learning the best lengths found by decoding prefixes (oracle).
    length_weight: weight of the length loss (the paper's lambda); for `oracle`, the price of a mask of
        full length in IoU.
    prefixes: how many lengths `oracle` decodes, spread geometrically over 1..L.
    temperature: in IoU; lengths whose expected utilities differ by less are about equally probable for `oracle`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Literal["chunking", "oracle"]
    length_weight: float = Field(ge=0)
    prefixes: int = Field(gt=1)
    temperature: float = Field(gt=0)


class PredictorTraining:
    """The forward pass of each step. Freezes all of `model` but its length predictor."""

    def __init__(self, model: MaskTokenizer, settings: PredictorSettings) -> None:
        self.model = model
        self.settings = settings
        device = model.device
        self.prefix_lengths = spread_lengths(model.config.max_length, settings.prefixes).to(device)
        model.requires_grad_(False)
        model.length_predictor.requires_grad_(True)

    def forward(self, step: int, batch: BatchTensors) -> StepResult:
        encoding = self.model.encode(batch.masks)
        embedding = self.model.encode_image(batch.images)
        chunking = self.settings.objective == "chunking"
        objective = self._chunking_loss if chunking else self._oracle_loss
        return StepResult(
            loss=objective(encoding, batch.masks, embedding),
            samples=batch.ids,
            figures={"expected_length": expected_length(encoding.stop_probabilities).mean()},
        )

    def _chunking_loss(self, encoding: Encoding, masks: Tensor, embedding: Tensor) -> Tensor:
        keep = soft_keep_mask(encoding.stop_probabilities)
        logits = self.model.decode_kept(encoding.vectors, keep, embedding)
        target = masks.squeeze(1)
        quality = (bce_loss(logits, target) + dice_loss(logits, target)).mean()
        return quality + self.settings.length_weight * length_loss(encoding.stop_probabilities)

    def _oracle_loss(self, encoding: Encoding, masks: Tensor, embedding: Tensor) -> Tensor:
        ious = prefix_iou(self.model, encoding.codes, masks, embedding, self.prefix_lengths)
        ious = interpolate(ious, self.prefix_lengths, self.model.config.max_length)
        lengths = torch.arange(1, ious.shape[1] + 1, device=ious.device)
        utility = ious - self.settings.length_weight * lengths / ious.shape[1]
        predicted = encoding.stop_logits.to(utility.dtype) * self.settings.temperature
        # Divided, so that the gradient in a logit is its error in IoU whatever the temperature.
        return mse_loss(_centred(predicted), _centred(utility)) / self.settings.temperature


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(-1, keepdim=True)


def interpolate(values: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """Values (B, N) at `lengths` (N,), from 1 to `longest` in rising order, to values at 1..longest; linear."""
    wanted = torch.arange(1, longest + 1, device=lengths.device)
    above = torch.searchsorted(lengths, wanted)
    below = (above - 1).clamp(min=0)
    span = (lengths[above] - lengths[below]).clamp(min=1)
    return torch.lerp(values[:, below], values[:, above], (wanted - lengths[below]) / span)
