"""FLOPs of the parts of a training step, counted without computing anything."""

from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.parts import PassInputs, parts_of_a_pass
from tests.benchmarks.procedures import both_procedures
from tests.benchmarks.sizes import MASKS_PER_IMAGE, MASKS_PER_STEP, Size


def step_flops(size: Size) -> tuple[dict[str, float], dict[str, float]]:
    """FLOPs a mask of each part, of the published procedure (one mask an image) and of ours (K)."""
    # Unlike tensors on the meta device, fake ones say that they are on the processor, which autocast wants to know.
    # The counter knows attention only as the matrix products it is made of.
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        published, ours = both_procedures(size)
        result = []
        for procedure, masks_per_image in ((published, 1), (ours, MASKS_PER_IMAGE)):
            inputs = PassInputs.zeros(size, masks_per_image)
            parts = parts_of_a_pass(procedure, inputs)
            counted = {name: counted_flops(part) / size.masks_per_pass for name, part in parts.items()}
            for parameter in procedure.trained:
                parameter.grad = torch.zeros_like(parameter)
            result.append(counted | {"optimizer": counted_flops(procedure.update) / MASKS_PER_STEP})
    return result[0], result[1]


def counted_flops(compute: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        compute()
    return float(counter.get_total_flops())
