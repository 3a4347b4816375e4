"""Sample scenes as SA-1B ships them and as the pipeline prepares them, made by the pipeline's own stages."""

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from alto_models import masks as mask_arithmetic
from jobs import acquire_sa1b, prepare_sa1b
from jobs.preparation.settings import PUBLISHED_FILES, ImagesConfig
from jobs.runner.context import StageContext
from jobs.runner.metric_log import MetricLog
from jobs.sample_scenes.scene import SceneConfig

SHARD = "sa_000000.tar"
LARGE_WIDTH, LARGE_HEIGHT, LARGE_MASKS = 2250, 1500, 60


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """source: folder of `sa_N.jpg` + `sa_N.json`; prepared: output of prepare_sa1b."""

    source: Path
    prepared: Path


def draw_scenes(folder: Path, images: int, scene: SceneConfig, held_out_share: float = 0.0) -> Scenes:
    """Both forms of some scenes, always the same ones."""
    acquired = _acquire(folder, acquire_sa1b.Config(scene=scene, images_per_shard=images))
    source = folder / "source"
    with tarfile.open(acquired / SHARD) as tar:
        tar.extractall(source, filter="data")
    return Scenes(source=source, prepared=_prepare(folder, acquired, held_out_share))


def copied_pairs(folder: Path, source: Path, images: ImagesConfig = PUBLISHED_FILES) -> Scenes:
    """Both forms of the SA-1B pairs in `source`."""
    acquired = _acquire(folder, acquire_sa1b.Config(source="folder", folder=str(source)))
    return Scenes(source=source, prepared=_prepare(folder, acquired, 0.0, images))


def draw_large_pairs(folder: Path, images: int) -> Path:
    """`sa_N.jpg` + `sa_N.json` of SA-1B's usual size and number of masks: ellipses on soft noise."""
    folder.mkdir(parents=True)
    for number in range(1, images + 1):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (LARGE_HEIGHT // 8, LARGE_WIDTH // 8, 3), np.uint8))
        picture = coarse.resize((LARGE_WIDTH, LARGE_HEIGHT), Image.Resampling.BICUBIC)
        picture.save(folder / f"sa_{number}.jpg", quality=90)
        masks = [_ellipse(rng) for _ in range(LARGE_MASKS)]
        image = {
            "image_id": number,
            "width": LARGE_WIDTH,
            "height": LARGE_HEIGHT,
            "file_name": f"sa_{number}.jpg",
        }
        annotations = [_annotation(place, mask) for place, mask in enumerate(masks)]
        (folder / f"sa_{number}.json").write_text(json.dumps({"image": image, "annotations": annotations}))
    return folder


def _ellipse(rng: np.random.Generator) -> NDArray[np.uint8]:
    width, height = rng.integers(150, 700, 2)
    left, top = rng.integers(0, LARGE_WIDTH - width), rng.integers(0, LARGE_HEIGHT - height)
    mask = Image.new("L", (LARGE_WIDTH, LARGE_HEIGHT))
    ImageDraw.Draw(mask).ellipse((left, top, left + width, top + height), fill=1)
    return np.asarray(mask)


def _annotation(place: int, mask: NDArray[np.uint8]) -> dict[str, Any]:
    """As the publisher's: boxes are a pixel short in width and height."""
    rle = mask_arithmetic.encode(mask)
    x, y, width, height = mask_arithmetic.box(mask_arithmetic.parse_counts(rle.counts), rle.height)
    return {
        "id": place,
        "segmentation": {"size": [rle.height, rle.width], "counts": rle.counts},
        "bbox": [x, y, width - 1, height - 1],
        "area": int(mask.sum()),
        "predicted_iou": 0.95,
        "stability_score": 0.97,
        "point_coords": [[x + width / 2, y + height / 2]],
        "crop_box": [0, 0, rle.width, rle.height],
    }


def copies(prepared: Path, folder: Path, rows: int, rows_per_group: int) -> Path:
    """Prepared data of that many rows: those of `prepared` again and again."""
    (path,) = prepared.rglob("shard-*.parquet")
    table = pq.read_table(path)
    repeated = table.take(np.arange(rows) % len(table))
    folder.mkdir(parents=True)
    pq.write_table(
        repeated, folder / "shard-00000.parquet", row_group_size=rows_per_group, compression="zstd"
    )
    return folder


def _acquire(folder: Path, config: acquire_sa1b.Config) -> Path:
    context = stage_context(folder, "acquire_sa1b", items=(SHARD,))
    acquire_sa1b.run(config, context)
    return context.output


def _prepare(
    folder: Path, acquired: Path, held_out_share: float, images: ImagesConfig = PUBLISHED_FILES
) -> Path:
    context = stage_context(folder, "prepare_sa1b", inputs={"acquire_sa1b": acquired})
    prepare_sa1b.run(prepare_sa1b.Config(held_out_share=held_out_share, images=images), context)
    return context.output


def stage_context(
    folder: Path,
    stage: str,
    inputs: dict[str, Path] | None = None,
    items: tuple[str, ...] = (),
    seed: int = 0,
    partition: str | None = None,
) -> StageContext:
    """Context of a stage that writes below `folder`."""
    output, work = folder / stage / "output", folder / stage / "work"
    output.mkdir(parents=True)
    work.mkdir()
    return StageContext(
        stage=stage,
        partition=partition,
        partition_items=items,
        seed=seed,
        inputs=inputs or {},
        output=output,
        work=work,
        metric_log=MetricLog(work / "metrics.jsonl"),
    )
