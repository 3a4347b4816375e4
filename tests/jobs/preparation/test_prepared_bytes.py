"""The same bytes whatever happens while preparing: kills, threads, how archives are cut into parts."""

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alto_models.data.masks import MaskImages
from jobs.preparation import prepare as preparing
from jobs.preparation.prepare import prepare
from jobs.preparation.sa1b import SA1B
from jobs.preparation.settings import ContractConfig
from jobs.runner.context import StageContext, StageReport
from tests.jobs.raw_data import acquired, add_member, annotation, context, jpeg, sa1b_json

ARCHIVES, PAIRS = 3, 5


def write_archives(folder: Path) -> None:
    """Right and wrong masks; the last archive has an image of the first one again."""
    path = acquired(folder, "batch", "sa1b")
    for archive in range(ARCHIVES):
        with tarfile.open(path / f"sa_{archive:06d}.tar", "w") as tar:
            for number in range(10 * archive, 10 * archive + PAIRS):
                image_id = 1 if number == 10 * (ARCHIVES - 1) else number
                rows = [annotation(1), annotation(2, area=number)]
                add_member(tar, f"sa_{number}.jpg", jpeg(seed=image_id))
                add_member(tar, f"sa_{number}.json", sa1b_json(image_id, rows))


def run(given: StageContext, folder: Path, threads: int = 1) -> StageReport:
    limits = ContractConfig(max_quarantined_share=1.0)
    return prepare(SA1B, folder / "acquired" / "batch", 0.2, limits, given, threads=threads)


def digests(output: Path) -> dict[str, str]:
    files = sorted(path for path in output.rglob("*") if path.is_file())
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_archives(tmp_path)
    return tmp_path


def stopping_after(images: int) -> Callable[..., Any]:
    """A step of preparing that dies at the image after so many."""
    left, measure = images, preparing.measure_image

    def dying(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return measure(*arguments)

    return dying


def test_a_killed_run_goes_on_with_the_archives_it_has_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = context(folder / "whole", "prepare_sa1b", "batch")
    expected = run(whole, folder)
    given = context(folder / "killed", "prepare_sa1b", "batch")
    for images in (2 * PAIRS + 2, 1):
        with monkeypatch.context() as patch:
            patch.setattr(preparing, "measure_image", stopping_after(images))
            with pytest.raises(KeyboardInterrupt):
                run(given, folder)
        shutil.rmtree(given.output)
        given.output.mkdir()
    # The two finished archives are not read again: there are just enough images left to live through it.
    monkeypatch.setattr(preparing, "measure_image", stopping_after(PAIRS))
    assert run(given, folder) == expected
    assert digests(given.output) == digests(whole.output)
    assert expected.figures["quarantined_image_unique"] == 2


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(folder: Path, threads: int) -> None:
    alone = context(folder / "alone", "prepare_sa1b", "batch")
    several = context(folder / "several", "prepare_sa1b", "batch")
    assert run(alone, folder) == run(several, folder, threads)
    assert digests(alone.output) == digests(several.output)


def test_images_keep_their_order_over_archives(folder: Path) -> None:
    given = context(folder, "prepare_sa1b", "batch")
    run(given, folder, threads=2)
    images = [int(image.image_id) for image in MaskImages(given.output)]
    assert images == sorted(images)
    assert len(images) == ARCHIVES * PAIRS - 1
    assert [path.name for path in sorted(given.output.glob("shard-*"))] == [
        f"shard-{number:05d}.parquet" for number in range(ARCHIVES)
    ]


def test_work_on_another_file_system_is_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("cross-device link")

    linked = context(folder / "linked", "prepare_sa1b", "batch")
    run(linked, folder)
    monkeypatch.setattr("os.link", refuse)
    copied = context(folder / "copied", "prepare_sa1b", "batch")
    run(copied, folder)
    assert digests(copied.output) == digests(linked.output)
