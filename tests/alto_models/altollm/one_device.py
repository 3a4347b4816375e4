"""Proves on any machine that code does what it should on a GPU."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class OneDevice(TorchDispatchMode):
    """Within it, no operation but a copy may mix tensors of the processor and of the `meta` device.

    A model on `meta` has shapes and no values: whatever would make the host wait for values raises of itself.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.ndim]
        devices = {tensor.device.type for tensor in tensors}
        if func not in _COPIES and len(devices) > 1:
            raise AssertionError(f"{func} mixes tensors of {sorted(devices)}")
        return func(*args, **(kwargs or {}))
