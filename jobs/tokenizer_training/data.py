"""Crops for training and held-out evaluation, as the tokenizer's stages configure them."""

from collections.abc import Iterator
from functools import cached_property

import torch
from pydantic import BaseModel, ConfigDict, Field

from alto_models.data.crops import CropReader, CropSettings, croppable_rows
from alto_models.data.masks import MaskImages
from alto_models.data.row_groups import RowIndex
from alto_models.data.workers import read_ahead
from alto_models.tokenizer.evaluation import View, held_out_views
from alto_models.tokenizer.interface import TokenizerSizes
from alto_models.tokenizer.stage1 import BatchTensors
from alto_models.training.precision import own_device
from alto_models.training.processes import own_passes
from jobs.runner.context import StageContext

# Held-out crops are the same in every stage, whatever the seed of the training run.
HELD_OUT_SEED = 1


class CropsConfig(BaseModel):
    """
    crops_per_step: crops (images encoded) in a step, over all processes.
    masks_per_crop: merged masks drawn from each crop (K); 1 is the published sampling.
    max_merged: masks of an image that are merged into one, at most.
    min_area_share: smaller masks are not drawn; of the image's long side squared.
    whole_image_share: of crops that are the whole image, as the language model sees it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crops_per_step: int = Field(gt=0)
    masks_per_crop: int = Field(gt=0)
    max_merged: int = Field(gt=0)
    min_area_share: float = Field(ge=0, lt=1)
    whole_image_share: float = Field(ge=0, le=1)

    def settings(self, tokenizer: TokenizerSizes) -> CropSettings:
        return CropSettings(
            image_size=tokenizer.image_size,
            mask_size=tokenizer.mask_size,
            masks_per_crop=self.masks_per_crop,
            max_merged=self.max_merged,
            min_area_share=self.min_area_share,
            whole_image_share=self.whole_image_share,
        )


class TrainingBatches:
    """Batches of the train split, read ahead in the background; the batch of a step is always the same.

    crops_per_pass: crops of a forward pass in one process, None for its whole share of a step. Passes of a step that
    cannot be divided into equal ones of all processes are refused with InputError.
    """

    def __init__(
        self,
        config: CropsConfig,
        tokenizer: TokenizerSizes,
        context: StageContext,
        crops_per_pass: int | None = None,
    ) -> None:
        self._settings = config.settings(tokenizer)
        self._rows = _training_rows(context, self._settings)
        self._seed = context.seed
        self._workers = context.workers
        self._step_crops = config.crops_per_step
        self._crops_per_pass = crops_per_pass

    @cached_property
    def _passes(self) -> list[range]:
        names = "crops.crops_per_step or training.crops_per_pass"
        return own_passes(self._step_crops, self._crops_per_pass, names)

    @property
    def passes(self) -> int:
        """Forward passes of a step in this process."""
        return len(self._passes)

    @cached_property
    def _any_step(self) -> CropReader:
        return self._reader(in_turn=False)

    def at(self, step: int) -> BatchTensors:
        """All crops of a step, whichever process takes them, on the processor."""
        crops = range(self._step_crops)
        batch = self._any_step.batch(self._positions(step, crops))
        return BatchTensors(batch, crops, self._step_crops, torch.device("cpu"))

    def own_passes(self, first: int, stop: int) -> Iterator[BatchTensors]:
        """What this process takes in the steps `first` to `stop` - 1, pass by pass, on its device."""
        device = own_device()
        numbers = range(first * self.passes, stop * self.passes)
        batches = read_ahead(self._reader(in_turn=True), self._positions_of_pass, numbers, self._workers)
        for number, batch in zip(numbers, batches, strict=True):
            yield BatchTensors(batch, self._passes[number % self.passes], self._step_crops, device)

    def _positions_of_pass(self, number: int) -> range:
        step, turn = divmod(number, self.passes)
        return self._positions(step, self._passes[turn])

    def _positions(self, step: int, crops: range) -> range:
        start = step * self._step_crops
        return range(start + crops.start, start + crops.stop)

    def _reader(self, in_turn: bool) -> CropReader:
        return CropReader(self._rows, self._settings, self._seed, self._step_crops, in_turn)


def _training_rows(context: StageContext, settings: CropSettings) -> RowIndex:
    """Raises InputError where the copy in a bucket is not of the output that the run is recorded with."""
    rows = croppable_rows(context.inputs["prepare_sa1b"], "train", settings)
    copy = context.copies.get("prepare_sa1b")
    return rows if copy is None else rows.read_from(copy)


def read_held_out(
    config: CropsConfig, tokenizer: TokenizerSizes, context: StageContext, limit: int
) -> list[View]:
    """Views of the first `limit` images of the held-out split, see HeldOutViews."""
    views = HeldOutViews(config, tokenizer, context)
    return views.of(range(min(limit, views.images)))


class HeldOutViews:
    """Views of the held-out split: whole images (single objects) and a crop of each (merged masks).

    images: how many there are.
    """

    def __init__(self, config: CropsConfig, tokenizer: TokenizerSizes, context: StageContext) -> None:
        self._images = MaskImages(context.inputs["prepare_sa1b"], "held_out")
        self._settings = config.settings(tokenizer)
        self.images = len(self._images)

    def of(self, places: range) -> list[View]:
        return held_out_views(self._images, self._settings, places, HELD_OUT_SEED)
