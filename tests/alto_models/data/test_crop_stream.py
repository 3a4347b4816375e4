"""Crops streamed from shards: by how many processes and workers ever, after a stop, from damaged files, in bounded
memory."""

import gc
import multiprocessing
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alto_models.data.crops import AHEAD_STEPS, CropBatch, CropReader, croppable_rows
from alto_models.data.masks import MaskImages
from alto_models.data.row_groups import RowGroups
from alto_models.data.workers import WorkerDied, read_ahead
from data_contracts.errors import InputError
from data_contracts.schemas import MASKS_SCHEMA
from tests.alto_models.data.prepared import SETTINGS, usable_ids, write_shards

IMAGES = 200
STEP = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("prepared"), IMAGES)


def reader(folder: Path, seed: int = 3, cache_bytes: int = 0) -> CropReader:
    return CropReader(
        croppable_rows(folder, "train", SETTINGS), SETTINGS, seed, STEP, cache_bytes=cache_bytes
    )


def read(folder: Path, steps: range, ranks: int = 1, workers: int = 0) -> list[CropBatch]:
    """The batches of each step, of all processes in turn."""
    share = STEP // ranks

    def own(rank: int) -> Iterator[CropBatch]:
        def positions(step: int) -> range:
            return range(step * STEP + rank * share, step * STEP + (rank + 1) * share)

        return read_ahead(reader(folder), positions, steps, workers)

    of_ranks = [list(own(rank)) for rank in range(ranks)]
    return [batch for step in zip(*of_ranks, strict=True) for batch in step]


def ids(batches: list[CropBatch]) -> list[str]:
    return [image_id for batch in batches for image_id in batch.image_ids]


def pixels(batches: list[CropBatch]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([each.images for each in batches]), np.concatenate([each.masks for each in batches])


def require_same(some: list[CropBatch], others: list[CropBatch]) -> None:
    assert ids(some) == ids(others)
    for mine, theirs in zip(pixels(some), pixels(others), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_each_epoch_shows_every_usable_image_once(folder: Path, ranks: int) -> None:
    """Also though no epoch ends with a step."""
    expected = usable_ids(IMAGES)
    assert len(expected) % STEP
    seen = ids(read(folder, range(-(-3 * len(expected) // STEP)), ranks))
    for epoch in range(3):
        assert sorted(seen[epoch * len(expected) : (epoch + 1) * len(expected)]) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("ranks", "workers"), [(1, 4), (2, 1)])
def test_worker_processes_read_what_a_thread_reads(folder: Path, ranks: int, workers: int) -> None:
    steps = range(len(usable_ids(IMAGES)) // STEP + 2)
    require_same(read(folder, steps, ranks, workers), read(folder, steps))


@pytest.mark.slow
def test_more_workers_than_crops(folder: Path) -> None:
    (batch,) = read_ahead(reader(folder), lambda _: range(2), range(1), workers=3)
    assert len(batch.image_ids) == 2


@pytest.mark.parametrize(("stop", "ranks"), [(3, 2), (7, 8), (11, 3)])
def test_a_run_goes_on_with_other_processes(folder: Path, stop: int, ranks: int) -> None:
    whole = read(folder, range(14))
    rest = read(folder, range(stop, 14), ranks)
    assert ids(rest) == ids(whole[stop:])
    np.testing.assert_array_equal(pixels(rest)[0], pixels(whole[stop:])[0])


@pytest.mark.slow
def test_a_run_goes_on_with_other_workers(folder: Path) -> None:
    whole = read(folder, range(6))
    require_same(read(folder, range(2), workers=2) + read(folder, range(2, 6), ranks=2, workers=1), whole)


def test_a_reader_sent_elsewhere_reads_the_same(folder: Path) -> None:
    here = reader(folder)
    here.batch(range(5))
    require_same([pickle.loads(pickle.dumps(here)).batch(range(5, 30))], [here.batch(range(5, 30))])


def test_masks_belong_to_their_images(folder: Path) -> None:
    """K masks a crop, of its own image, the first never empty: here the only one there is."""
    batch = reader(folder).batch(range(40))
    assert batch.masks.shape == (40, SETTINGS.masks_per_crop, 8, 8)
    assert batch.masks.any(axis=(2, 3)).all()
    np.testing.assert_array_equal(batch.masks[:, 0], batch.masks[:, 1])


def test_every_row_group_is_read_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those at the borders of lanes; nothing is kept that nobody needs."""
    reads: list[int] = []
    read_group = RowGroups._read

    def counted(self: RowGroups, group: int) -> pa.Table:
        reads.append(group)
        return read_group(self, group)

    rows = croppable_rows(write_shards(tmp_path, 600), "train", SETTINGS)
    monkeypatch.setattr(RowGroups, "_read", counted)
    lanes = 4
    stream = CropReader(rows, SETTINGS, 0, lanes, cache_bytes=0)
    for position in range(len(rows) - lanes * AHEAD_STEPS):  # then it reads ahead of the next epoch
        stream.crop(position)
    assert set(reads) == set(range(len(rows.groups)))
    assert len(reads) < len(rows.groups) + lanes


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Where decoders would read on."""
    folder = write_shards(tmp_path, 40, side=40)
    (path,) = folder.rglob("shard-*.parquet")
    stream = reader(folder)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"shard-00000\.parquet: .*run the prepare stage again") as raised:
        stream.batch(range(40))
    assert "\n" not in str(raised.value)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, 40)
    (path,) = folder.rglob("shard-*.parquet")
    table = pq.read_table(path)
    broken = [image[: len(image) // 2] for image in table["image"].to_pylist()]
    column = table.schema.get_field_index("image")
    table = table.set_column(column, MASKS_SCHEMA.field("image"), pa.array(broken))
    pq.write_table(table, path, row_group_size=8)
    with pytest.raises(InputError, match=r"shard-00000\.parquet: image image-\d+ cannot be decoded"):
        reader(folder).batch(range(2))
    with pytest.raises(
        InputError, match=r"image image-0001 cannot be decoded: .*run the prepare stage again"
    ):
        MaskImages(folder, "train")[0]


@pytest.mark.parametrize("size", [0, 3, 2000])
def test_a_shard_that_ends_early_is_named(size: int, tmp_path: Path) -> None:
    folder = write_shards(tmp_path, 40)
    (path,) = folder.rglob("shard-*.parquet")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"shard-00000\.parquet: .*run the prepare stage again or copy"):
        reader(folder)


def test_a_shard_of_another_version_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, 40)
    (path,) = folder.rglob("shard-*.parquet")
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"version": b"0"}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(
        InputError, match=r"shard-00000\.parquet: .*version 0, but .* version 2.*run the prepare stage again"
    ):
        reader(folder)


def test_a_shard_that_vanishes_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, 80)
    stream = reader(folder)
    gone = folder / "batch_1" / "shard-00001.parquet"
    kept = gone.read_bytes()
    gone.unlink()
    with pytest.raises(InputError, match=r"shard-00001\.parquet: was there .* and is gone"):
        stream.batch(range(60))
    gone.write_bytes(kept)
    assert sorted(stream.batch(range(len(stream))).image_ids) == usable_ids(80)


@pytest.mark.slow
def test_a_worker_that_cannot_read_says_so_in_one_line(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, 80)
    stream = reader(folder)
    (folder / "batch_1" / "shard-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"shard-00001\.parquet: was there") as raised:
        list(read_ahead(stream, lambda step: range(step * STEP, (step + 1) * STEP), range(4), workers=2))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_worker_that_dies_is_one_clear_line(folder: Path) -> None:
    batches = read_ahead(
        reader(folder), lambda step: range(step * STEP, (step + 1) * STEP), range(999), workers=2
    )
    next(batches)
    worker = multiprocessing.active_children()[0]
    worker.kill()
    worker.join()  # nothing is raised here, in the middle of whatever is done between two batches
    with pytest.raises(
        WorkerDied, match=r"resources\.workers; training goes on from its last checkpoint"
    ) as raised:
        list(batches)
    assert "\n" not in str(raised.value)
    del raised, batches
    gc.collect()
    for other in multiprocessing.active_children():
        other.join(timeout=30)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_memory_is_flat_over_ten_passes(tmp_path: Path) -> None:
    """3 MB of images, of which a reader of one lane holds two windows of 64."""
    folder = write_shards(tmp_path, 300, per_shard=150, side=56)
    rows = croppable_rows(folder, "train", SETTINGS)
    stream = CropReader(rows, SETTINGS, 0, cache_bytes=100_000)
    tracemalloc.start()
    peaks = []
    for epoch in range(10):
        tracemalloc.reset_peak()
        most_arrow = 0
        for position in range(epoch * len(stream), (epoch + 1) * len(stream)):
            stream.crop(position)
            most_arrow = max(most_arrow, pa.total_allocated_bytes())
        peaks.append((tracemalloc.get_traced_memory()[1], most_arrow))
    tracemalloc.stop()
    python, arrow = np.array(peaks).T
    assert python.max() < 1_000_000  # keeping the pixels of each crop would make 2 MB
    assert arrow.max() < 2_300_000
    assert arrow[1:].max() < 1.3 * arrow[1]
