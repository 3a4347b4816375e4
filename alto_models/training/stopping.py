"""Ending a training run early, with a checkpoint: all of its processes after the same step."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from alto_models.training.processes import process_count


class AgreedStop:
    """Whether any of the processes was asked to stop: at each call, the same answer in all of them.

    A call gives the answer to the call before, which every process has long sent: it waits neither for the device
    nor for a slower process of this step. A single process is answered at once.
    """

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked
        self._before: tuple[Tensor, Any] | None = None

    def __call__(self) -> bool:
        if process_count() == 1:
            return self._asked()
        before, self._before = self._before, None
        if before is not None:
            asked, exchange = before
            exchange.wait()
            if asked:
                return True
        own = torch.tensor(int(self._asked()))  # on the processor, so over gloo
        self._before = own, dist.all_reduce(own, dist.ReduceOp.MAX, async_op=True)
        return False
