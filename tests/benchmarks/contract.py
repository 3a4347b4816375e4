"""Holding SA-1B masks against their contract: the verdict on every row, then Great Expectations on the manifest.

Masks are measured beforehand, for measuring belongs to reading. The share of damaged rows is what a shard of some
trouble has. Peak memory is that of the whole process, libraries included.
"""

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alto_models import masks as mask_arithmetic
from jobs.formats.raw import RawImage, RawMask, RawRow
from jobs.preparation.contract_frame import Judge, as_table, manifest_schema
from jobs.preparation.measuring import MeasuredImage, MeasuredRow, measure_mask
from jobs.preparation.prepare import IMAGES_AT_ONCE
from jobs.preparation.quarantine import rejections
from jobs.preparation.rows import split_by_hash
from jobs.preparation.sa1b import SA1B
from jobs.preparation.seen import Seen
from jobs.preparation.tables import TableWriter, join_files
from jobs.preparation.validation import validate_manifest
from tests.benchmarks.harness import arguments, machine, publish, table

ROWS = 1_000_000
MASKS_PER_IMAGE = 100
HEIGHT, WIDTH = 1500, 2250
DAMAGED_EVERY = 200  # rows


def measured_rows() -> list[MeasuredRow]:
    """Rows of one image: boxes of different sizes, whose claims are right but for one of DAMAGED_EVERY."""
    rows = []
    for number in range(DAMAGED_EVERY):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        left, top, side = 7 * number, 5 * number, 20 + number
        mask[top : top + side, left : left + side] = 1
        rle = mask_arithmetic.encode(mask)
        raw = RawMask(
            mask_id=str(number),
            segmentation={"size": [HEIGHT, WIDTH], "counts": rle.counts},
            stated_area=float(side * side + (number == 0)),
            stated_box=(float(left), float(top), side - 1.0, side - 1.0),
            predicted_iou=0.95,
            stability_score=0.97,
        )
        measured = measure_mask(raw, (WIDTH, HEIGHT), SA1B.contract.convention)
        rows.append(MeasuredRow(raw=RawRow(row_id=str(number), masks=(raw,)), masks=(measured,)))
    return rows


def measured_images(rows: int) -> Iterator[list[MeasuredImage]]:
    """Images in the pieces they are judged in."""
    template = measured_rows()
    halves = [tuple(template[:MASKS_PER_IMAGE]), tuple(template[MASKS_PER_IMAGE:])]
    count = rows // MASKS_PER_IMAGE
    for start in range(0, count, IMAGES_AT_ONCE):
        yield [
            MeasuredImage(
                raw=RawImage(
                    image_id=str(number),
                    source_file=f"sa_000000.tar/sa_{number}",
                    rows=tuple(row.raw for row in halves[number % 2]),
                    stated_size=(WIDTH, HEIGHT),
                ),
                sha256=f"{number:032x}" * 2,
                size=(WIDTH, HEIGHT),
                problem=None,
                rows=halves[number % 2],
            )
            for number in range(start, min(start + IMAGES_AT_ONCE, count))
        ]


def judge_rows(rows: int, folder: Path) -> tuple[float, int]:
    """Processor seconds to judge and store the manifest, and how many rows were rejected."""
    judge = Judge(
        contract=SA1B.contract,
        seen=Seen(across_images=SA1B.rows_unique_across_images),
        split_of=lambda image, row: split_by_hash(image.raw.image_id, 0.1),
    )
    seconds, rejected = 0.0, []
    with TableWriter(folder / "manifest.parquet", manifest_schema(SA1B.columns)) as manifest:
        for images in measured_images(rows):
            start = time.process_time()
            verdicts, accepted = judge.verdicts(images)
            manifest.add(as_table(accepted, SA1B.columns))
            rejected.append(rejections(verdicts, SA1B.row))
            seconds += time.process_time() - start
    path = folder / "quarantine.parquet"
    with TableWriter(path, rejected[0].schema) as quarantine:
        for each in rejected:
            quarantine.add(each)
    join_files([path], folder / "joined.parquet", rejected[0].schema)
    return seconds, sum(map(len, rejected))


def peak_memory() -> float:
    """GB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(words: list[str] | None = None) -> None:
    parser = arguments(__doc__, "contract", repeats=1)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"mask rows (default {ROWS:,})")
    options = parser.parse_args(words)
    import great_expectations  # noqa: F401 - its import takes as long whatever the number of rows

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judged, rejected = judge_rows(options.rows, folder)
        memory = peak_memory()
        start = time.process_time()
        outcome = validate_manifest(
            SA1B.contract, folder / "manifest.parquet", folder / "quarantine.parquet", folder / "data_docs"
        )
        validated = time.process_time() - start
    assert not outcome.failed
    steps = (("verdict on every row", judged, memory), ("Great Expectations", validated, peak_memory()))
    lines = [
        [step, f"{seconds:.1f}", f"{options.rows / seconds:,.0f}", f"{gigabytes:.2f}"]
        for step, seconds, gigabytes in (*steps, ("together", judged + validated, peak_memory()))
    ]
    intro = f"{options.rows:,} mask rows, {rejected:,} rejected, {outcome.expectations} rules ({machine()}):"
    columns = ["", "processor seconds", "rows/s", "peak memory (GB)"]
    publish("contract", f"{intro}\n\n{table(columns, lines)}", options.write)


if __name__ == "__main__":
    main()
