"""Preparing SA-1B images with every check: images a second and core, and where the time goes.

Real pairs (`--source FOLDER`, by default the sample data beside the project) are repeated under other ids in a tar;
where there are none, generated pairs of that size are. Processor time of all threads is counted; Great Expectations and
the page are in it, whose fixed cost is taken out by preparing two numbers of images.
"""

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from alto_models import masks as mask_arithmetic
from jobs.formats.raw import RawImage
from jobs.formats.sa1b import open_sa1b
from jobs.preparation.contract_frame import Judge
from jobs.preparation.measuring import image_size, measure_image
from jobs.preparation.part import PartWriter
from jobs.preparation.prepare import prepare
from jobs.preparation.rows import split_of
from jobs.preparation.sa1b import SA1B
from jobs.preparation.seen import Seen
from jobs.preparation.settings import PUBLISHED_FILES, ContractConfig, ImagesConfig
from jobs.preparation.storing import with_stored_form
from tests.benchmarks.harness import arguments, interleaved, machine, milliseconds, publish, table
from tests.benchmarks.scenes import SHARD, stage_context

SHARED = Path(__file__).parents[3] / "shared" / "data" / "sa1b"
WIDTH, HEIGHT, MASKS = 2250, 1500, 100
MAX_PIXELS = ContractConfig().max_image_pixels
HELD_OUT = 0.1
SMALLER = ImagesConfig(encoding="jpeg", max_side=1024)

Pair = tuple[bytes, dict]


class Rates(NamedTuple):
    """Processor seconds an image; fixed: seconds whatever the number of images."""

    original: float
    smaller: float
    fixed: float


def real_pairs(folder: Path) -> list[Pair]:
    return [
        (path.with_suffix(".jpg").read_bytes(), json.loads(path.read_bytes()))
        for path in sorted(folder.glob("sa_*.json"))
    ]


def generated_pair(width: int = WIDTH, height: int = HEIGHT, masks: int = MASKS, seed: int = 0) -> Pair:
    """A noisy picture with ellipses as masks."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    picture = np.clip(picture + random.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=88)
    annotations = [_annotation(random, number, width, height) for number in range(masks)]
    return file.getvalue(), {"image": {"width": width, "height": height}, "annotations": annotations}


def _annotation(random: np.random.Generator, number: int, width: int, height: int) -> dict:
    x, y = random.uniform(0, width), random.uniform(0, height)
    radii = random.uniform(0.01, 0.2, 2) * height
    rows, columns = np.ogrid[:height, :width]
    mask = ((columns - x) / radii[0]) ** 2 + ((rows - y) / radii[1]) ** 2 < 1 + 0.1 * np.sin(columns / 9)
    mask[int(y), int(x)] = True
    rle = mask_arithmetic.encode(mask)
    runs = mask_arithmetic.parse_counts(rle.counts)
    box = mask_arithmetic.box(runs, height)
    return {
        "id": number,
        "segmentation": {"size": [height, width], "counts": rle.counts},
        "bbox": [box.x, box.y, box.width - 1, box.height - 1],
        "area": mask_arithmetic.area(runs),
        "predicted_iou": 0.95,
        "stability_score": 0.97,
    }


def write_shard(folder: Path, pairs: list[Pair], images: int) -> Path:
    """Acquired folder of one shard that repeats the pairs."""
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text('{"format": "sa1b"}')
    with tarfile.open(folder / SHARD, "w") as tar:
        for number in range(images):
            data, content = pairs[number % len(pairs)]
            content = content | {"image": content["image"] | {"image_id": number}}
            data += number.to_bytes(4)  # behind the picture's end, as the same file twice would be noticed
            for name, member_data in (("jpg", data), ("json", json.dumps(content).encode())):
                member = tarfile.TarInfo(f"sa_{number}.{name}")
                member.size = len(member_data)
                tar.addfile(member, io.BytesIO(member_data))
    return folder


def prepare_once(acquired: Path, images: ImagesConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        context = stage_context(Path(folder), "prepare_sa1b")
        report = prepare(SA1B, acquired, HELD_OUT, ContractConfig(), context, images=images)
        assert report.figures["rows_quarantined"] == 0


def rates(few: Path, many: Path, images: tuple[int, int], repeats: int) -> Rates:
    """few, many: acquired folders of so many images."""
    seconds = interleaved(
        {
            "few": lambda: prepare_once(few, PUBLISHED_FILES),
            "many": lambda: prepare_once(many, PUBLISHED_FILES),
            "few smaller": lambda: prepare_once(few, SMALLER),
            "many smaller": lambda: prepare_once(many, SMALLER),
        },
        repeats,
    )
    more = images[1] - images[0]
    original = (seconds["many"] - seconds["few"]) / more
    smaller = (seconds["many smaller"] - seconds["few smaller"]) / more
    return Rates(original=original, smaller=smaller, fixed=seconds["few"] - images[0] * original)


def part_seconds(acquired: Path, repeats: int) -> dict[str, float]:
    """Processor seconds of the parts for all images of a folder, each run on its own."""
    raw = list(read_shard(acquired))
    measured = [measure_image(image, SA1B.contract.convention, MAX_PIXELS) for image in raw]
    verdicts, accepted = judge().verdicts(measured)

    def store() -> None:
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "part")
            part.mkdir()
            with PartWriter(SA1B, part, 0, "batch", HELD_OUT) as writer:
                writer.add(verdicts, accepted)
            shutil.rmtree(part)

    seconds = interleaved(
        {
            "reading the archive and its JSON": lambda: list(read_shard(acquired)),
            "decoding the image": lambda: [image_size(image.data, MAX_PIXELS) for image in raw],
            "image and masks": lambda: [
                measure_image(one, SA1B.contract.convention, MAX_PIXELS) for one in raw
            ],
            "rules of the contract": lambda: judge().verdicts(measured),
            "Parquet, content hash, sample tiles": store,
            "encoding at 1024 pixels, masks scaled": lambda: [
                with_stored_form(image, SMALLER) for image in measured
            ],
        },
        repeats,
    )
    decoding = seconds["decoding the image"]
    both = seconds.pop("image and masks")
    return {**seconds, "measuring the masks from their runs": both - decoding}


def read_shard(acquired: Path) -> Iterator[RawImage]:
    return open_sa1b(acquired).images


def judge() -> Judge:
    return Judge(
        contract=SA1B.contract,
        seen=Seen(across_images=False),
        split_of=lambda image, row: split_of(image, row, HELD_OUT),
    )


def main() -> None:
    parser = arguments(__doc__, "prepare", repeats=3)
    parser.add_argument(
        "--source", type=Path, default=SHARED, help="folder of SA-1B pairs sa_N.jpg + sa_N.json"
    )
    parser.add_argument(
        "--images", type=int, default=160, help="of the larger of the two shards (default 160)"
    )
    options = parser.parse_args()
    pairs = real_pairs(options.source) or [generated_pair(seed=seed) for seed in range(2)]
    counts = (options.images // 5, options.images)
    with tempfile.TemporaryDirectory() as folder:
        few, many = (write_shard(Path(folder, str(count)), pairs, count) for count in counts)
        found = rates(few, many, counts, options.repeats)
        parts = {name: seconds / counts[1] for name, seconds in part_seconds(many, options.repeats).items()}
    optional = parts.pop("encoding at 1024 pixels, masks scaled")
    together = sum(parts.values())
    rows = [
        [name, milliseconds(seconds), f"{seconds / together:.0%}"]
        for name, seconds in sorted(parts.items(), key=lambda part: -part[1])
    ]
    rows += [
        ["**together, measured in one**", milliseconds(found.original), ""],
        ["images a second and core", f"**{1 / found.original:.1f}**", ""],
        ["by option: encoding at 1024 pixels, masks scaled", milliseconds(optional), ""],
        ["images a second and core, so encoded", f"{1 / found.smaller:.1f}", ""],
    ]
    kind = "real" if any(options.source.glob("sa_*.json")) else "generated"
    text = (
        f"{kind.capitalize()} pairs of about {WIDTH} × {HEIGHT} pixels and {MASKS} masks; processor time; fixed "
        f"cost of a partition {found.fixed:.0f} s ({machine()}):\n\n{table(['part', 'ms an image', 'share'], rows)}"
    )
    publish("prepare", text, options.write)


if __name__ == "__main__":
    main()
