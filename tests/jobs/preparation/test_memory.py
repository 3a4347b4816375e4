"""Preparing takes the same memory for ten times the images, and for images that would explode."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.jobs.raw_data import acquired, add_member, annotation, rle, sa1b_json

SIDE, MASKS = 180, 6
FEW, MANY = 200, 2000
GROWTH = 60  # MB, a third of the files of MANY images

PREPARE = """
import re, sys
from pathlib import Path
from jobs.preparation.prepare import prepare
from jobs.preparation.sa1b import SA1B
from jobs.preparation.settings import ContractConfig
from tests.jobs.raw_data import context
folder = Path(sys.argv[1])
report = prepare(SA1B, folder / "acquired" / "batch", 0.1, ContractConfig(), context(folder, "prepare_sa1b", "batch"))
print(report.figures["rows_accepted"], re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def noise() -> bytes:
    """A file of a tenth of a megabyte."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A file of a tenth of a megabyte with 900 million pixels."""
    file = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, "PNG")
    return file.getvalue()


def peak_megabytes(folder: Path, images: int, extra: bytes | None = None) -> float:
    path = acquired(folder, "batch", "sa1b")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:10, 3:13] = 1
    rows = [annotation(number, segmentation=rle(mask)) for number in range(MASKS)]
    data = noise()
    with tarfile.open(path / "sa_000000.tar", "w") as tar:
        for number in range(images):
            add_member(tar, f"sa_{number}.jpg", data + number.to_bytes(4))  # no file twice
            add_member(tar, f"sa_{number}.json", sa1b_json(number, rows, width=SIDE, height=SIDE))
        if extra is not None:
            add_member(tar, f"sa_{images}.jpg", extra)
            add_member(tar, f"sa_{images}.json", sa1b_json(images, rows, width=30_000, height=30_000))
    command = [sys.executable, "-c", PREPARE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    accepted, kilobytes = done.stdout.split()
    assert int(accepted) == images * MASKS
    return int(kilobytes) / 1000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    few = peak_megabytes(tmp_path / "few", FEW)
    many = peak_megabytes(tmp_path / "many", MANY, bomb())
    assert many - few < GROWTH, f"{few:.0f} MB for {FEW} images, {many:.0f} MB for {MANY} and a bomb"
    print(f"{few:.0f} MB for {FEW} images, {many:.0f} MB for {MANY} and a bomb")
