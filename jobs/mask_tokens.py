"""Turns every mask of the referring training data into codes, once, with the mask tokenizer.

Result: one Parquet file a data set, a row a record; records without a target have no mask and no row.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from pydantic import Field

from alto_models.data.referring import ReferringImage, ReferringImages
from alto_models.masks import Rle, decode
from alto_models.metrics import iou
from alto_models.tokenizer.model import MaskTokenizer, load_tokenizer
from alto_models.tokenizer.prefixes import oracle_length, prefix_iou
from alto_models.tokenizer.whole_image import decode_to_image, embed_whole_image, mask_grids
from alto_models.training.precision import own_device
from data_contracts.schemas import MASK_TOKENS_SCHEMA
from jobs.runner.command_line import run_from_command_line
from jobs.runner.context import Check, JobConfig, StageContext, StageReport


class Config(JobConfig):
    images_per_batch: int = Field(gt=0, description="images whose masks are coded together")
    min_iou: float = Field(ge=0, le=1, description="mean IoU of the coded masks below which the check fails")
    lengths: Literal["predicted", "oracle"] = Field(
        description="of the adaptive form: as the tokenizer predicts, or of the shortest prefix that is good enough"
    )
    oracle_tolerance: float = Field(
        ge=0, description="IoU a prefix may lack against the full length to be good enough"
    )


class Target(NamedTuple):
    """One mask to code; image is its place in the batch."""

    image: int
    record_id: str
    rle: Rle


def run(config: Config, context: StageContext) -> StageReport:
    model = load_tokenizer(context.inputs["tokenizer_stage1_5"]).to(own_device())
    images = ReferringImages(context.inputs["prepare_referring"], "train")
    rows: list[dict[str, object]] = []
    with context.progress(len(images), "Coding masks", "image") as bar:
        for batch in _batches(iter(images), config.images_per_batch):
            rows += code_masks(model, batch, config)
            bar.update(len(batch))
    table = pa.Table.from_pylist(rows, schema=MASK_TOKENS_SCHEMA)
    for dataset in sorted(set(table["dataset"].to_pylist())):
        part = table.filter(pc.field("dataset") == dataset)
        pq.write_table(part, context.output / f"{dataset}.parquet", compression="zstd")
    return _report(table, model, config)


@torch.no_grad()
def code_masks(
    model: MaskTokenizer, images: Sequence[ReferringImage], config: Config
) -> list[dict[str, object]]:
    """Rows of MASK_TOKENS_SCHEMA for all records with a target."""
    targets = [
        Target(place, record.record_id, record.rle)
        for place, image in enumerate(images)
        for record in image.records
        if record.rle is not None
    ]
    if not targets:
        return []
    grids = mask_grids(model, [target.rle for target in targets])
    encoding = model.encode(grids)
    embedding = embed_whole_image(model, [image.image for image in images])
    embedding = embedding[[target.image for target in targets]]
    sizes = [(target.rle.height, target.rle.width) for target in targets]
    lengths = encoding.length
    if config.lengths == "oracle":
        lengths = oracle_length(prefix_iou(model, encoding.codes, grids, embedding), config.oracle_tolerance)
    full = encoding.length.new_full(encoding.length.shape, model.config.max_length)
    masks = [decode(target.rle).astype(bool) for target in targets]
    full_masks = decode_to_image(model, encoding.codes, full, embedding, sizes)
    adaptive_masks = decode_to_image(model, encoding.codes, lengths, embedding, sizes)
    return [
        {
            "dataset": images[target.image].source,
            "image_id": images[target.image].image_id,
            "record_id": target.record_id,
            "codes": codes,
            "length": length,
            "full_iou": iou(full_mask, mask),
            "adaptive_iou": iou(adaptive_mask, mask),
        }
        for target, codes, length, mask, full_mask, adaptive_mask in zip(
            targets,
            encoding.codes.tolist(),
            lengths.tolist(),
            masks,
            full_masks,
            adaptive_masks,
            strict=True,
        )
    ]


def _batches(images: Iterator[ReferringImage], size: int) -> Iterator[list[ReferringImage]]:
    while batch := list(islice(images, size)):
        yield batch


def _report(table: pa.Table, model: MaskTokenizer, config: Config) -> StageReport:
    lengths = table["length"].to_numpy()
    full_iou = float(table["full_iou"].to_numpy().mean(dtype=np.float64))
    adaptive_iou = float(table["adaptive_iou"].to_numpy().mean(dtype=np.float64))
    codes = table["codes"].combine_chunks().flatten().to_numpy()
    return StageReport(
        figures={
            "masks": len(table),
            "full_iou": round(full_iou, 4),
            "adaptive_iou": round(adaptive_iou, 4),
            "mean_length": round(float(lengths.mean(dtype=np.float64)), 4),
            "max_length": model.config.max_length,
            "codebook_usage": round(len(np.unique(codes)) / model.config.codebook_size, 4),
        },
        checks=(
            Check(
                name="codes_rebuild_masks",
                passed=adaptive_iou >= config.min_iou,
                reason=f"mean IoU of the coded masks is {adaptive_iou:.3f} at adaptive and {full_iou:.3f} at full "
                f"length, at image resolution (at least {config.min_iou:g})",
            ),
        ),
    )


if __name__ == "__main__":
    run_from_command_line("mask_tokens")
