"""Reading a training sample: prepared shards and masks cut from runs, against decoding the source files.

Every image is read once, as in an epoch of a data set too large to be kept decoded; `--source` adds a folder of
real SA-1B pairs at the published resolutions.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

from alto_models.data.crops import CropReader, CropSettings, croppable_rows
from jobs.sample_scenes.scene import SceneConfig
from tests.benchmarks.harness import arguments, interleaved, machine, milliseconds, publish, ratio, table
from tests.benchmarks.published_reading import PublishedReader
from tests.benchmarks.scenes import Scenes, copied_pairs, draw_scenes
from tests.benchmarks.sizes import FULL, MASKS_PER_IMAGE, REDUCED, SMALL, Size

# As large as the network's input needs: SA-1B's long side is about twice the published 1024 pixels.
SCENES = {
    SMALL.name: SceneConfig(),
    REDUCED.name: SceneConfig(min_side=704, max_side=1024, min_objects=6, max_objects=12),
}
IMAGES = {SMALL.name: 96, REDUCED.name: 24}


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


def main() -> None:
    parser = arguments(__doc__, "reading", repeats=7)
    parser.add_argument("--source", type=Path, help="folder of SA-1B pairs sa_N.jpg + sa_N.json")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases = [("scenes", size, sample_scenes(Path(folder) / size.name, size)) for size in (SMALL, REDUCED)]
        if options.source is not None:
            cases.append(("SA-1B", FULL, copied_pairs(Path(folder) / "real", options.source)))
        for kind, size, scenes in cases:
            times = reading_times(scenes, size, options.repeats)
            rows.append(
                [
                    f"{kind}: {size.ours.pixel_encoder.image_size} / {size.ours.mask_size}",
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
    text = f"Processor milliseconds to read a mask with its image ({machine()}):\n\n{table(columns, rows)}"
    publish("reading", text, options.write)


if __name__ == "__main__":
    main()
