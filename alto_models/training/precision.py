"""What a training step computes in."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products and convolutions in `precision`; weights, sums and losses stay in float32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_AUTOCAST[precision])


def own_device() -> torch.device:
    """The accelerator that the launcher gave this process (LOCAL_RANK), or the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to `device` without waiting for what it is doing; the tensor itself where it is there already."""
    if device.type != "cuda" or tensor.device == device:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """float32 for anything less precise; for sums and distances that half precision is too coarse for."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
