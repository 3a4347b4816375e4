"""Evaluation in shards: shared out over the processes of a job, and each finished one kept.

What a shard holds depends on nothing but the shard, so neither the number of processes nor a restart changes a
result. A killed run redoes the shard that each of its processes was in, with as many processes as it then has.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alto_models.training.processes import (
    gathered_in_first,
    gathered_objects,
    process_count,
    process_rank,
    said_by_first,
)
from jobs.runner.context import StageContext


def in_shards(
    name: str, images: int, images_per_shard: int, make: Callable[[range], pa.Table], context: StageContext
) -> list[pa.Table] | None:
    """The tables that `make` gives for each range of images, in order; None in all processes but the first.

    name: of the files in `context.work`, and of the progress bar.
    """
    starts = range(0, images, images_per_shard)
    shards = [range(start, min(start + images_per_shard, images)) for start in starts]
    paths = [context.work / f"{name}-{number:05d}.parquet" for number in range(len(shards))]
    finished = set(gathered_objects([number for number, path in enumerate(paths) if path.exists()]))
    missing = [number for number in range(len(shards)) if number not in finished]
    waiting = sum(len(shards[number]) for number in missing)
    with context.progress(images, f"Evaluating {name}", "image", initial=images - waiting) as bar:
        for number in missing[process_rank() :: process_count()]:
            _write_whole(_in_memory(make(shards[number])), paths[number])
            bar.update(len(shards[number]))
        _bring_to_first(paths)
        bar.update(images - bar.n)
    return [pq.read_table(path) for path in paths] if process_rank() == 0 else None


def _bring_to_first(paths: list[Path]) -> None:
    """Give the first process the files that only others see: nodes may each have a work folder of their own."""
    lacking = said_by_first([number for number, path in enumerate(paths) if not path.exists()])
    own = {number: paths[number].read_bytes() for number in lacking if paths[number].exists()}
    for files in gathered_in_first(own):
        for number, content in files.items():
            _write_whole(content, paths[number])


def _in_memory(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _write_whole(content: bytes, path: Path) -> None:
    partial = path.with_suffix(f".partial{process_rank()}")
    partial.write_bytes(content)
    os.replace(partial, path)
