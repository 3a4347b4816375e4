"""Reading batches ahead of training: in a thread of its process, or in worker processes."""

import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import current_thread, main_thread
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from alto_models.data.crops import CropBatch, CropReader
from data_contracts.errors import InputError

# Passes that are read before they are asked for.
DEPTH = 2


class WorkerDied(RuntimeError):
    """A reading worker is gone; the message says what to do."""


def read_ahead(
    reader: CropReader, passes: Callable[[int], range], numbers: range, workers: int
) -> Iterator[CropBatch]:
    """The crops at positions `passes(number)` for each number in turn; the same for any number of workers.

    All passes have equally many crops. Each worker takes the same part of every pass, so that it reads row groups
    for these places of a step only. workers: 0 for a thread of this process.
    Raises InputError as CropReader does, and WorkerDied.
    """
    if workers == 0:
        yield from prefetched(lambda number: reader.batch(passes(number)), numbers, DEPTH)
        return
    workers = min(workers, len(passes(numbers.start)))
    parts = _started(_loader(reader, passes, numbers, workers))
    try:
        for _ in numbers:
            yield _joined([_whole(next(parts)) for _ in range(workers)])
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise WorkerDied(
            f"{error.args[0].splitlines()[0]} (a process that reads training data; a kill mostly means that memory "
            "or /dev/shm is full): run again, with fewer resources.workers; training goes on from its last checkpoint"
        ) from None
    finally:
        del parts  # ends the workers now, not when the last traceback that knows this frame is gone


class _Part(NamedTuple):
    """Crops of a pass, as tensors, which pass between processes in shared memory."""

    image_ids: tuple[str, ...]
    images: Tensor
    masks: Tensor


class _Parts(Dataset[_Part | InputError]):
    def __init__(self, reader: CropReader) -> None:
        self._reader = reader

    def __getitem__(self, positions: range) -> _Part | InputError:
        try:
            batch = self._reader.batch(positions)
        except InputError as error:  # raised here it would come with this process's traceback
            return error
        return _Part(batch.image_ids, torch.from_numpy(batch.images), torch.from_numpy(batch.masks))


class _PartPositions(Sampler[range]):
    """Positions of the parts of each pass in turn: as many parts as there are workers, so that each gets its own."""

    def __init__(self, passes: Callable[[int], range], numbers: range, parts: int) -> None:
        self._passes = passes
        self._numbers = numbers
        self._parts = parts

    def __iter__(self) -> Iterator[range]:
        for number in self._numbers:
            yield from part_positions(self._passes(number), self._parts)


def part_positions(positions: range, parts: int) -> Iterator[range]:
    """Cut into stretches that differ by at most one in length."""
    for part in range(parts):
        first, stop = (len(positions) * edge // parts for edge in (part, part + 1))
        yield positions[first:stop]


def _loader(
    reader: CropReader, passes: Callable[[int], range], numbers: range, workers: int
) -> DataLoader[_Part | InputError]:
    return DataLoader(
        _Parts(reader),
        sampler=_PartPositions(passes, numbers, workers),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=DEPTH,
        # A forked process inherits locks of threads that it does not have: of Arrow, of its S3 client, of OpenMP
        # and of CUDA, and can wait for them for ever.
        multiprocessing_context="spawn",
        worker_init_fn=_start_worker,
    )


def _started(loader: DataLoader[_Part | InputError]) -> Iterator[_Part | InputError]:
    """torch has the death of a worker raised wherever this process just is, such as amid a step; without its signal
    handler it is raised where what that worker reads is waited for."""
    if current_thread() is not main_thread():  # torch sets no handler there, and nobody can
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _as_it_is(part: Any) -> Any:
    return part


def _start_worker(worker: int) -> None:
    # Sent to a whole job, these ask it for a checkpoint, and until that is saved it reads on. Workers end with it.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)


def _whole(part: _Part | InputError) -> _Part:
    if isinstance(part, InputError):
        raise part
    return part


def _joined(parts: list[_Part]) -> CropBatch:
    return CropBatch(
        image_ids=tuple(image_id for part in parts for image_id in part.image_ids),
        images=np.concatenate([part.images.numpy() for part in parts]),
        masks=np.concatenate([part.masks.numpy() for part in parts]),
    )


Batch = TypeVar("Batch")


def prefetched(read: Callable[[int], Batch], steps: range, depth: int = DEPTH) -> Iterator[Batch]:
    """read(step) for each step in turn, up to `depth` of them read ahead by one background thread."""
    pending: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            for step in steps:
                pending.append(pool.submit(read, step))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
