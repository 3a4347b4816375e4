"""How far the mask that the predicted codes mean lies from the true one: a loss through the frozen de-tokenizer.

The codes of an answer have probabilities; their mean code vectors are decoded to a mask, which is compared with the
record's (ALTo, arXiv 2505.16495: BCE + 0.25 Dice). A code that means nearly the right mask then costs little, which
cross-entropy cannot tell. Letters: N learned tokens, M masks, L codes at most, V codebook entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alto_models.altollm.packing import PackedBatch
from alto_models.altollm.vocabulary import MaskVocabulary
from alto_models.data.shards import Picture
from alto_models.masks import Rle
from alto_models.tokenizer.losses import bce_loss, dice_loss
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.whole_image import embed_whole_image, mask_grids
from alto_models.training.precision import at_least_float32, to_device
from alto_models.training.processes import mean_over_processes

SURELY_BACKGROUND = -50.0  # a logit that costs nothing where nothing is


class MaskLossSettings(BaseModel):
    """Loss of the decoded masks beside the cross-entropy: weight * (BCE + dice_weight * Dice)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(ge=0, description="of the mask loss; 0: none")
    dice_weight: float = Field(ge=0, description="of Dice beside BCE")
    sharpness: float = Field(
        gt=0, description="logits are multiplied by it before the softmax over the codes"
    )


@dataclass(frozen=True, kw_only=True)
class MaskTargets:
    """The true masks of a batch's answers, in the order of the answers.

    pictures: I images as they are stored, at their own size. image_of: (M,) the image of each mask.
    ignored: pixels that count neither way, of each mask; None for none.
    lengths: (M,) codes in each answer. places: (all their codes,) int64, which of the learned tokens these are.
    Raises ValueError where these are not as many as `lengths` say.
    """

    pictures: Sequence[Picture]
    image_of: Sequence[int]
    masks: Sequence[Rle]
    ignored: Sequence[Rle | None]
    lengths: Sequence[int]
    places: Tensor

    def __post_init__(self) -> None:
        if len(self.places) != sum(self.lengths):
            raise ValueError(f"{len(self.places)} codes in the answers, {sum(self.lengths)} in their masks")


def code_places(batch: PackedBatch, vocabulary: MaskVocabulary) -> Tensor:
    """Which of the learned tokens of a batch are codes of masks: (codes in all answers,) int64, on the CPU."""
    learned = batch.labels.flatten()[batch.learned]
    return torch.isin(learned, torch.tensor(vocabulary.codes)).nonzero()[:, 0]


class MaskLoss:
    """Gradients go to the logits alone: the tokenizer is frozen, and the language model never sees these pixels."""

    def __init__(
        self, tokenizer: MaskTokenizer, vocabulary: MaskVocabulary, settings: MaskLossSettings
    ) -> None:
        self.settings = settings
        self._tokenizer = tokenizer.eval().requires_grad_(False)
        self._codes = torch.tensor(vocabulary.codes)

    def __call__(self, logits: Tensor, targets: MaskTargets) -> dict[str, Tensor]:
        """`mask_loss` (weighted), `mask_bce` and `mask_dice`, scalars: means over the masks, 0 where there are none.

        logits: (N, vocabulary), of the learned tokens. Of several processes, the mean of their losses is that over all
        masks.
        """
        counted = mean_over_processes(logits.new_tensor(len(targets.masks), dtype=torch.float32)).clamp(min=1)
        if targets.masks:
            bce, dice = (each.sum() / counted for each in self.of_masks(logits, targets))
        else:
            bce = dice = counted.new_zeros(())
        loss = self.settings.weight * (bce + self.settings.dice_weight * dice)
        return {"mask_loss": loss, "mask_bce": bce, "mask_dice": dice}

    def of_masks(self, logits: Tensor, targets: MaskTargets) -> tuple[Tensor, Tensor]:
        """BCE and Dice of each mask, (M,) both."""
        tokenizer, device = self._tokenizer, logits.device
        probabilities = self.code_probabilities(logits, to_device(targets.places, device))
        padded = pad_sequence(list(probabilities.split(list(targets.lengths))), batch_first=True)
        lengths = to_device(torch.tensor(targets.lengths), device)
        embedding = embed_whole_image(tokenizer, targets.pictures)
        embedding = embedding.index_select(0, to_device(torch.tensor(targets.image_of), device))
        decoded = tokenizer.decode_probabilities(padded, lengths, embedding)
        truth = mask_grids(tokenizer, targets.masks)[:, 0]
        left_out = _grids_of_ignored(tokenizer, targets)
        decoded, truth = decoded.masked_fill(left_out, SURELY_BACKGROUND), truth.masked_fill(left_out, 0)
        return bce_loss(decoded, truth), dice_loss(decoded, truth)

    def code_probabilities(self, logits: Tensor, places: Tensor) -> Tensor:
        """(codes in all answers, V) float32, from the logits of the tokens at `places`.

        Nothing but (codes, V) is copied; the weights of the head are not multiplied a second time.
        """
        chosen = logits[places[:, None], to_device(self._codes, logits.device)]
        return (self.settings.sharpness * at_least_float32(chosen)).softmax(-1)


def _grids_of_ignored(tokenizer: MaskTokenizer, targets: MaskTargets) -> Tensor:
    """(M, S, S) bool; (M, 1, 1) where no mask has such pixels."""
    ignored = [(index, rle) for index, rle in enumerate(targets.ignored) if rle is not None]
    if not ignored:
        return torch.zeros(len(targets.masks), 1, 1, dtype=torch.bool, device=tokenizer.device)
    grids = mask_grids(tokenizer, [rle for _, rle in ignored])[:, 0] > 0
    places = to_device(torch.tensor([index for index, _ in ignored]), tokenizer.device)
    every = grids.new_zeros(len(targets.masks), *grids.shape[1:])
    return every.index_copy(0, places, grids)
