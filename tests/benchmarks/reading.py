"""Reading a training sample: prepared shards and masks cut from runs, against decoding the source files.

Every image is decoded for each of its crops, as in an epoch of a data set too large to be kept decoded. Images of
SA-1B's size are real ones where `../shared/data/sa1b` has some, else drawn.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from alto_models.data.crops import CropReader, CropSettings, croppable_rows
from alto_models.data.workers import read_ahead
from jobs.preparation.settings import ImagesConfig
from jobs.sample_scenes.scene import SceneConfig
from tests.benchmarks.harness import arguments, interleaved, machine, milliseconds, publish, ratio, table
from tests.benchmarks.published_reading import PublishedReader
from tests.benchmarks.scenes import Scenes, copied_pairs, copies, draw_large_pairs, draw_scenes
from tests.benchmarks.sizes import FULL, MASKS_PER_IMAGE, REDUCED, SMALL, Size

# As large as the network's input needs: SA-1B's long side is about twice the published 1024 pixels.
SCENES = {
    SMALL.name: SceneConfig(),
    REDUCED.name: SceneConfig(min_side=704, max_side=1024, min_objects=6, max_objects=12),
}
IMAGES = {SMALL.name: 96, REDUCED.name: 24}
REAL_PAIRS = Path(__file__).resolve().parents[3] / "shared" / "data" / "sa1b"
LARGE_IMAGES = 4
STEP, STEPS, WARMING_STEPS = 8, 12, 4  # crops; steps
PUBLISHED_SAMPLES = 24
WORKERS = (0, 1, 2)


class ReadingTimes(NamedTuple):
    """Processor seconds a mask."""

    published: float
    ours_one: float
    ours: float


def reading_times(scenes: Scenes, size: Size, repeats: int) -> ReadingTimes:
    published = PublishedReader(scenes.source, _settings(size, 1))
    images = len(published)

    def read_published() -> None:
        for position in range(images):
            published.sample(position)

    def read_ours(masks_per_crop: int) -> None:
        settings = _settings(size, masks_per_crop)
        reader = CropReader(croppable_rows(scenes.prepared, "train", settings), settings, seed=0)
        for position in range(images):
            reader.crop(position)

    seconds = interleaved(
        {
            "published": read_published,
            "ours_one": lambda: read_ours(1),
            "ours": lambda: read_ours(MASKS_PER_IMAGE),
        },
        repeats,
    )
    return ReadingTimes(
        published=seconds["published"] / images,
        ours_one=seconds["ours_one"] / images,
        ours=seconds["ours"] / images / MASKS_PER_IMAGE,
    )


def _settings(size: Size, masks_per_crop: int) -> CropSettings:
    return CropSettings(
        image_size=size.ours.pixel_encoder.image_size,
        mask_size=size.ours.mask_size,
        masks_per_crop=masks_per_crop,
    )


def sample_scenes(folder: Path, size: Size) -> Scenes:
    """Scenes of a size that suits the network."""
    return draw_scenes(folder, IMAGES[size.name], SCENES[size.name])


def large_pairs(folder: Path) -> tuple[str, Path]:
    """Images of SA-1B's size, real ones where there are any, and what they are."""
    if REAL_PAIRS.exists():
        return "SA-1B", REAL_PAIRS
    return "drawn", draw_large_pairs(folder / "large", LARGE_IMAGES)


def masks_a_second(prepared: Path, settings: CropSettings, workers: int) -> float:
    """By the clock, in steps of 8 crops, after the first ones, which wait for workers to start."""
    reader = CropReader(croppable_rows(prepared, "train", settings), settings, 0, STEP)
    batches = read_ahead(
        reader, lambda step: range(step * STEP, (step + 1) * STEP), range(STEPS + WARMING_STEPS), workers
    )
    for _ in range(WARMING_STEPS):
        next(batches)
    start = time.perf_counter()
    masks = sum(batch.masks.shape[0] * batch.masks.shape[1] for batch in batches)
    return masks / (time.perf_counter() - start)


def published_masks_a_second(source: Path, settings: CropSettings) -> float:
    reader = PublishedReader(source, settings)
    start = time.perf_counter()
    for turn in range(PUBLISHED_SAMPLES):
        reader.sample(turn % len(reader))
    return PUBLISHED_SAMPLES / (time.perf_counter() - start)


def resident_over_passes(prepared: Path, settings: CropSettings, passes: int = 10) -> list[float]:
    """Resident MB of this process after each pass, with room for nothing but what is needed."""
    reader = CropReader(croppable_rows(prepared, "train", settings), settings, 0, 2, cache_bytes=0)
    process, resident = psutil.Process(), []
    for turn in range(passes):
        for position in range(turn * len(reader), (turn + 1) * len(reader)):
            reader.crop(position)
        resident.append(process.memory_info().rss / 2**20)
    return resident


def processor_table(folder: Path, kind: str, pairs: Path, repeats: int) -> str:
    """Everything in one thread."""
    stored_anew = ImagesConfig(encoding="jpeg", max_side=FULL.ours.pixel_encoder.image_size)
    cases = [("scenes", size, sample_scenes(folder / size.name, size)) for size in (SMALL, REDUCED)]
    cases.append((kind, FULL, copied_pairs(folder / "published", pairs)))
    cases.append((f"{kind}, stored at 1024", FULL, copied_pairs(folder / "anew", pairs, stored_anew)))
    rows = []
    for name, size, scenes in cases:
        times = reading_times(scenes, size, repeats)
        rows.append(
            [
                f"{name}: {size.ours.pixel_encoder.image_size} / {size.ours.mask_size}",
                *map(milliseconds, times),
                ratio(times.ours_one, times.published),
                ratio(times.ours, times.published),
            ]
        )
    columns = [
        "image / mask side in pixels",
        "published",
        "ours, K = 1",
        f"ours, K = {MASKS_PER_IMAGE}",
        "factor at K = 1",
        f"factor at K = {MASKS_PER_IMAGE}",
    ]
    return f"Processor milliseconds to read a mask with its image ({machine()}):\n\n{table(columns, rows)}"


def worker_table(folder: Path, kind: str, pairs: Path) -> str:
    prepared = copies(
        folder / "published" / "prepare_sa1b" / "output", folder / "many", rows=256, rows_per_group=32
    )
    published = published_masks_a_second(pairs, _settings(FULL, 1))
    rows = [["published, one process", f"{published:.1f}", "", "", ""]]
    for workers in WORKERS:
        rates = [masks_a_second(prepared, _settings(FULL, count), workers) for count in (1, MASKS_PER_IMAGE)]
        label = "a thread" if workers == 0 else f"{workers} worker process{'es' * (workers > 1)}"
        rows.append([label, *(cell for rate in rates for cell in (f"{rate:.1f}", ratio(published, rate)))])
    columns = ["read by", "masks/s, K = 1", "factor", f"masks/s, K = {MASKS_PER_IMAGE}", "factor"]
    load = os.getloadavg()[0]
    return (
        f"Masks a second by the clock, {kind} images at 1024 / 256 pixels, steps of {STEP} crops, {os.cpu_count()} "
        f"hyperthreads under a load of {load:.0f}:\n\n{table(columns, rows)}"
    )


def memory_line(folder: Path) -> str:
    prepared = copies(
        folder / REDUCED.name / "prepare_sa1b" / "output", folder / "more", rows=480, rows_per_group=16
    )
    size = sum(path.stat().st_size for path in prepared.iterdir()) / 2**20
    resident = resident_over_passes(prepared, _settings(SMALL, 1))
    return (
        f"Memory over 10 passes of {size:.0f} MB in 480 rows: {resident[0]:.0f} MB resident after the first, "
        f"{resident[1]:.0f} after the second, {resident[-1]:.0f} after the last, {max(resident):.0f} at most."
    )


def main() -> None:
    options = arguments(__doc__, "reading", repeats=7).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind, pairs = large_pairs(folder)
        parts = [
            processor_table(folder, kind, pairs, options.repeats),
            worker_table(folder, kind, pairs),
            memory_line(folder),
        ]
    publish("reading", "\n\n".join(parts), options.write)


if __name__ == "__main__":
    main()
