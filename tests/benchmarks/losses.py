"""The reconstruction loss alone, forward and backward: ours against the published one, at several mask sizes."""

from collections.abc import Callable

import torch
from torch import Tensor

from alto_models.tokenizer.losses import bce_loss, dice_loss, edge_loss
from tests.benchmarks.harness import arguments, interleaved, machine, milliseconds, publish, ratio, table
from tests.benchmarks.published_loss import EDGE_WEIGHT, published_loss

Loss = Callable[[Tensor, Tensor], Tensor]
SIZES = ((8, 256), (64, 128), (64, 64))  # masks of a pass, mask side


def our_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """As stage 1 has it by default: (B, M, M) x (B, M, M) -> scalar."""
    return (bce_loss(logits, masks) + dice_loss(logits, masks)).mean()


def our_loss_with_edges(logits: Tensor, masks: Tensor) -> Tensor:
    """As the profile `paper` has it."""
    return our_loss(logits, masks) + EDGE_WEIGHT * edge_loss(logits, masks).mean()


def with_idle_terms(logits: Tensor, masks: Tensor) -> Tensor:
    return published_loss(logits, masks, with_idle_terms=True)


LOSSES: dict[str, Loss] = {
    "published": published_loss,
    "published, with its terms of weight 0": with_idle_terms,
    "ours": our_loss,
    "ours, with edge loss": our_loss_with_edges,
}
OURS = [name for name in LOSSES if name.startswith("ours")]


def loss_times(masks: int, side: int, repeats: int) -> dict[str, float]:
    """Processor seconds a mask of each loss."""
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(masks, side, side, generator=generator) > 0.5).float()
    logits = torch.randn(masks, side, side, generator=generator).requires_grad_()

    def run(loss: Loss) -> None:
        logits.grad = None
        loss(logits, target).backward()

    cases = {name: lambda loss=loss: run(loss) for name, loss in LOSSES.items()}
    return {name: seconds / masks for name, seconds in interleaved(cases, repeats).items()}


def main() -> None:
    options = arguments(__doc__, "losses", repeats=21).parse_args()
    rows = []
    for masks, side in SIZES:
        times = loss_times(masks, side, options.repeats)
        factors = [ratio(times[name], times["published"]) for name in OURS]
        rows.append([f"{side} px", *map(milliseconds, times.values()), *factors])
    text = table(["ms a mask", *LOSSES, *(f"factor of {name}" for name in OURS)], rows)
    publish("losses", f"Median of {options.repeats} ({machine()}):\n\n{text}", options.write)


if __name__ == "__main__":
    main()
