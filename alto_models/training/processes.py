"""The processes of one training run: who takes which samples, and sums over all of them.

Everything here works alike in a process of its own, where torch.distributed is not initialised. Gradients
are averaged explicitly instead of by DistributedDataParallel, because the stages call several methods of a
model in a step, and which parameters take part changes from phase to phase.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from data_contracts.errors import InputError

T = TypeVar("T")

BUCKET_BYTES = 64 * 2**20  # of gradients averaged in one exchange


def communication_backend() -> str:
    """Of torch.distributed: how tensors on the processor and on GPUs travel between processes."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def process_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def own_share(total: int) -> range:
    """The part of 0..total-1 that this process takes: all processes' parts are equal, and in rank order.

    Raises InputError where `total` cannot be divided evenly.
    """
    count, rank = process_count(), process_rank()
    if total % count:
        raise InputError(f"{total} samples a step cannot be shared out evenly over {count} processes")
    size = total // count
    return range(rank * size, (rank + 1) * size)


def own_passes(total: int, most: int | None, parameters: str) -> list[range]:
    """This process's part of 0..total-1, in forward passes of `most` each; None: in a single one.

    parameters: where both are set, for the message.
    Raises InputError where the processes or the passes cannot be equal.
    """
    share = own_share(total)
    size = most or len(share)
    if len(share) % size:
        raise InputError(
            f"params.yaml: {len(share)} samples a step in each of {process_count()} processes cannot be divided "
            f"into passes of {size}; change {parameters}"
        )
    return [range(start, start + size) for start in range(share.start, share.stop, size)]


def mean_over_processes(values: Tensor) -> Tensor:
    """Mean of every process's `values`, elementwise, without gradient."""
    if process_count() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / process_count()


def max_over_processes(value: int) -> int:
    """Of every process's `value`, without waiting for a device."""
    if process_count() == 1:
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


class _Sum(torch.autograd.Function):
    """Sum over processes. Each process's result counts in every loss, so gradients are summed likewise."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum of every process's `values`, elementwise, with gradient."""
    if process_count() == 1:
        return values
    total: Tensor = _Sum.apply(values)
    return total


def gathered(tensor: Tensor) -> Tensor:
    """All processes' tensors, of equal shape, concatenated along the first dimension in rank order."""
    if process_count() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(process_count())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def gathered_objects(values: Sequence[T]) -> list[T]:
    """All processes' values, in rank order."""
    if process_count() == 1:
        return list(values)
    parts: list[Any] = [None] * process_count()
    dist.all_gather_object(parts, list(values))
    return [value for part in parts for value in part]


def gathered_in_first(value: T) -> list[T]:
    """All processes' values, in rank order, in the first process; nothing in the others."""
    if process_count() == 1:
        return [value]
    parts: list[Any] = [None] * process_count()
    first = process_rank() == 0
    dist.gather_object(value, parts if first else None)
    return parts if first else []


def said_by_first(value: T) -> T:
    """The first process's value, in all of them."""
    box = [value]
    if process_count() > 1:
        dist.broadcast_object_list(box)
    return box[0]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes; the same parameters must have one in each."""
    if process_count() == 1:
        return
    for bucket in _buckets([parameter.grad for parameter in parameters if parameter.grad is not None]):
        flat = _flatten_dense_tensors(bucket)
        dist.all_reduce(flat)
        flat /= process_count()
        for gradient, averaged in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
            gradient.copy_(averaged)


def _buckets(gradients: list[Tensor]) -> Iterable[list[Tensor]]:
    """Gradients of one dtype in turn, in groups of about BUCKET_BYTES."""
    bucket: list[Tensor] = []
    filled = 0
    for gradient in sorted(gradients, key=lambda each: str(each.dtype)):
        if bucket and (filled + gradient.nbytes > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, filled = [], 0
        bucket.append(gradient)
        filled += gradient.nbytes
    if bucket:
        yield bucket
