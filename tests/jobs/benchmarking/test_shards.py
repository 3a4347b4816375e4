"""Shards are evaluated once each, whoever does it, and found again after a kill."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch.distributed as dist
import torch.multiprocessing as processes

from jobs.benchmarking.shards import in_shards
from tests.jobs.benchmark_example import stage_context

IMAGES, A_SHARD = 10, 3
WHOLE = list(range(IMAGES))


def evaluate(folder: Path) -> tuple[list[int] | None, list[int]]:
    """The images in the result, and those that this process evaluated."""
    evaluated: list[int] = []

    def make(images: range) -> pa.Table:
        evaluated.extend(images)
        return pa.table({"image": list(images)})

    tables = in_shards("masks", IMAGES, A_SHARD, make, stage_context(folder, "benchmark"))
    return None if tables is None else pa.concat_tables(tables)["image"].to_pylist(), evaluated


def test_finished_shards_are_not_evaluated_again(tmp_path: Path) -> None:
    assert evaluate(tmp_path) == (WHOLE, WHOLE)
    assert evaluate(tmp_path) == (WHOLE, [])
    (tmp_path / "work" / "masks-00001.parquet").unlink()
    assert evaluate(tmp_path) == (WHOLE, [3, 4, 5])


def test_what_was_being_written_when_a_run_was_killed_is_not_taken_for_finished(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "masks-00000.partial0").write_bytes(b"PAR1")
    assert evaluate(tmp_path) == (WHOLE, WHOLE)


def one_of_several(rank: int, count: int, folder: Path, nodes: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    found, evaluated = evaluate(folder / f"node{rank % nodes}")
    own = [image for image in WHOLE if image // A_SHARD % count == rank]
    assert evaluated == own, (rank, evaluated)
    assert found == (WHOLE if rank == 0 else None)
    again, evaluated = evaluate(folder / f"node{rank % nodes}")
    assert (again, evaluated) == (found, [])
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(("count", "nodes"), [(2, 1), (3, 3)])
def test_each_shard_is_evaluated_by_one_process_and_comes_to_the_first(
    tmp_path: Path, count: int, nodes: int
) -> None:
    """nodes: each with a work folder that no other sees."""
    arguments = (count, tmp_path, nodes)
    processes.start_processes(one_of_several, arguments, nprocs=count, start_method="fork")
