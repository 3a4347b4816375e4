"""Crops for training and held-out evaluation, as the tokenizer's stages configure them."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from alto_models.data.crops import CropReader, CropSettings, prefetched
from alto_models.data.masks import MaskImages
from alto_models.tokenizer.config import TokenizerConfig
from alto_models.tokenizer.evaluation import View, held_out_views
from alto_models.tokenizer.stage1 import BatchTensors
from jobs.runner.context import StageContext

# Held-out crops are the same in every stage, whatever the seed of the training run.
HELD_OUT_SEED = 1


class CropsConfig(BaseModel):
    """
    crops_per_step: crops (images encoded) in a step.
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

    def settings(self, tokenizer: TokenizerConfig) -> CropSettings:
        return CropSettings(
            image_size=tokenizer.pixel_encoder.image_size,
            mask_size=tokenizer.mask_size,
            masks_per_crop=self.masks_per_crop,
            max_merged=self.max_merged,
            min_area_share=self.min_area_share,
            whole_image_share=self.whole_image_share,
        )


class TrainingBatches:
    """Batches of the train split, read ahead in the background; the batch of a step is always the same."""

    def __init__(self, config: CropsConfig, tokenizer: TokenizerConfig, context: StageContext) -> None:
        images = MaskImages(context.inputs["prepare_sa1b"], "train")
        self._reader = CropReader(images, config.settings(tokenizer), context.seed)
        self._crops_per_step = config.crops_per_step

    def at(self, step: int) -> BatchTensors:
        return BatchTensors(self._reader.batch(step, self._crops_per_step))

    def steps(self, first: int, stop: int) -> Iterator[BatchTensors]:
        return prefetched(self.at, range(first, stop))


def read_held_out(
    config: CropsConfig, tokenizer: TokenizerConfig, context: StageContext, limit: int
) -> list[View]:
    """Views of the held-out split: whole images (single objects) and a crop of each (merged masks)."""
    images = MaskImages(context.inputs["prepare_sa1b"], "held_out")
    return held_out_views(images, tokenizer, config.settings(tokenizer), limit, HELD_OUT_SEED)
