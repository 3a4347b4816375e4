"""Stage 1: the whole tokenizer but its length predictor learns, on masks of random kept length.

A step draws K masks from each crop, whose pixels are encoded once. The run has four phases, given as
shares of its steps, because each ability is learned faster with the former in hand: no images (codes
must carry the mask), images, quantised codes, and shortened codes.
"""

from collections.abc import Iterable
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from alto_models.data.crops import CropBatch
from alto_models.tokenizer.losses import bce_loss, dice_loss, edge_loss
from alto_models.tokenizer.model import Encoding, MaskTokenizer
from alto_models.training.loop import StepResult
from alto_models.training.normalisation import NormaliseOverMasks, common_part
from alto_models.training.precision import to_device
from alto_models.training.processes import gathered


class Stage1Settings(BaseModel):
    """When the phases start (as shares of all steps), and how masks are shortened.

    images_from: share of all steps after which masks are decoded with their image.
    quantize_from: share of all steps after which latents are quantised.
    shorten_from: share of all steps after which masks keep a random number of codes.
    image_dropout: share of crops whose image is withheld in the later phases.
    full_length_share: of masks once lengths are shortened; so that late codes learn, too.
    revive_every: steps between two revivals of dead codes.
    revive_until: share of all steps after which dead codes stay dead.
    codebook_batches: batches whose latents the codebook is fitted to when the quantiser starts.
    bce_weight, dice_weight: in the loss, of the decoded mask.
    edge_weight: in the loss, of its boundary; 0: none.
    quantizer_weight: in the loss, of the distance between latents and their codes.
    common_part_weight: in the loss, of what all masks' features have in common (`common_part`). Nothing else in the
        loss asks for less of it, and where it outweighs what masks differ in by 100 to 1, bfloat16 loses codes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images_from: float = Field(ge=0, le=1)
    quantize_from: float = Field(ge=0, le=1)
    shorten_from: float = Field(ge=0, le=1)
    image_dropout: float = Field(ge=0, le=1)
    full_length_share: float = Field(ge=0, le=1)
    revive_every: int = Field(gt=0)
    revive_until: float = Field(ge=0, le=1)
    codebook_batches: int = Field(gt=0)
    bce_weight: float = Field(ge=0)
    dice_weight: float = Field(ge=0)
    edge_weight: float = Field(ge=0)
    quantizer_weight: float = Field(ge=0)
    common_part_weight: float = Field(ge=0)


class BatchTensors:
    """Crops of one forward pass as tensors: images (I, 3, S, S) in 0..1, masks (I * K, 1, M, M), by image.

    crops: which of the step's `step_crops` crops these are; every random choice is made for all of them, so
        that it does not depend on how they are shared out over passes and processes.
    """

    def __init__(self, batch: CropBatch, crops: range, step_crops: int, device: torch.device) -> None:
        self.ids = batch.image_ids
        self.crops = crops
        self.step_crops = step_crops
        self.images = to_device(torch.from_numpy(batch.images), device).float() / 255
        self.masks = to_device(torch.from_numpy(batch.masks).flatten(0, 1).unsqueeze(1), device)

    def own(self, per_crop: Tensor) -> Tensor:
        """This pass's part of values drawn for all crops of the step, on its device."""
        return to_device(per_crop[self.crops.start : self.crops.stop], self.images.device)


class Stage1:
    """The forward pass of each step. All that is random depends on the seed and the step only."""

    def __init__(self, model: MaskTokenizer, settings: Stage1Settings, total_steps: int, seed: int) -> None:
        self.model = model
        self.settings = settings
        self.total_steps = total_steps
        self.seed = seed

    def quantizer_starts_at(self) -> int:
        """Step before which `fit_codebook` has to be called."""
        return int(self.settings.quantize_from * self.total_steps)

    @torch.no_grad()
    def fit_codebook(self, batches: list[BatchTensors]) -> None:
        """Place the codebook on the latents of some batches."""
        device = self.model.device
        latents = [self.model.encode(batch.masks.to(device)).latents.flatten(0, 1) for batch in batches]
        self.model.quantizer.fit(torch.cat(latents), self._generator(self.quantizer_starts_at(), stream=1))

    def forward(self, step: int, batch: BatchTensors) -> StepResult:
        settings, model = self.settings, self.model
        generator = self._generator(step, stream=0)
        progress = step / self.total_steps
        quantized = step >= self.quantizer_starts_at()
        encoding = model.encode(batch.masks)
        embedding = self._image_embedding(batch, progress, generator)
        lengths = self._lengths(batch, progress, generator)
        vectors = encoding.vectors if quantized else encoding.latents
        logits = model.decode_vectors(vectors, lengths, embedding)
        target = batch.masks.squeeze(1)
        bce, dice = bce_loss(logits, target).mean(), dice_loss(logits, target).mean()
        loss = settings.bce_weight * bce + settings.dice_weight * dice
        figures = {"bce": bce, "dice": dice}
        if settings.edge_weight:
            figures["edge"] = edge_loss(logits, target).mean()
            loss = loss + settings.edge_weight * figures["edge"]
        if settings.common_part_weight:
            figures["common_part"] = common_part(encoding.features.flatten(1))
            loss = loss + settings.common_part_weight * figures["common_part"]
        if quantized:
            loss = loss + settings.quantizer_weight * encoding.quantizer_loss
            figures |= {
                "quantizer": encoding.quantizer_loss,
                "codebook_usage": model.quantizer.used_share(),
            }
        return StepResult(
            loss=loss,
            samples=batch.ids,
            figures=figures,
            after_update=partial(self._tend_codebook, step, encoding) if quantized else lambda: None,
        )

    def _image_embedding(self, batch: BatchTensors, progress: float, generator: torch.Generator) -> Tensor:
        withheld = torch.rand(batch.step_crops, generator=generator) < self.settings.image_dropout
        without = self.model.embedding_without_image(len(batch.crops))
        if progress < self.settings.images_from:
            return without
        return torch.where(
            batch.own(withheld).view(-1, 1, 1, 1), without, self.model.encode_image(batch.images)
        )

    def _lengths(self, batch: BatchTensors, progress: float, generator: torch.Generator) -> Tensor:
        longest, masks = self.model.config.max_length, len(batch.masks) // len(batch.crops)
        if progress < self.settings.shorten_from:
            return torch.full((len(batch.masks),), longest, device=batch.masks.device)
        count = batch.step_crops * masks
        lengths = draw_lengths(count, longest, self.settings.full_length_share, generator)
        return batch.own(lengths.view(batch.step_crops, masks)).flatten()

    def _tend_codebook(self, step: int, encoding: Encoding) -> None:
        quantizer, settings = self.model.quantizer, self.settings
        quantizer.track_usage(gathered(encoding.codes))
        if step % settings.revive_every == 0 and step < settings.revive_until * self.total_steps:
            latents = gathered(encoding.latents.detach()).flatten(0, 1)
            quantizer.revive_dead_codes(latents, self._generator(step, stream=1))

    def _generator(self, step: int, stream: int) -> torch.Generator:
        # Steps of one run never share a seed; the factor keeps runs of nearby seeds apart.
        return torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 2 + stream)


@torch.no_grad()
def settle_statistics(model: MaskTokenizer, batches: Iterable[BatchTensors]) -> None:
    """Let evaluation normalise with the moments that the final weights give, averaged over `batches`.

    While weights move, running means lag behind by more than masks differ in: what masks have in common can come
    to be many times what they differ in. Each process gives its own share of them. Leaves `model` in evaluation mode.
    """
    for module in model.modules():
        if isinstance(module, NormaliseOverMasks):
            module.average_moments()
    model.train()
    for batch in batches:
        model.encode(batch.masks.to(model.device))
    model.eval()


def draw_lengths(count: int, longest: int, full_share: float, generator: torch.Generator) -> Tensor:
    """Kept lengths (count,) int64 in 1..longest: `full_share` of them full, the others log-uniform.

    Log-uniform gives every doubling of the length the same share; the full ones let late codes learn.
    """
    exponent = torch.rand(count, generator=generator)
    short = ((longest + 1) ** exponent).long().clamp(1, longest)
    full = torch.rand(count, generator=generator) < full_share
    return torch.where(full, longest, short)
