"""Evaluating many masks of one image: encoded once and the masks in one batch, against one by one.

Each mask goes to codes and back at full length. One by one means that the image is encoded for every mask, by the
published network and, to tell the networks from the batching, by ours.
"""

import torch
from torch import Tensor

from alto_models.published.tokenizer import PublishedTokenizer
from alto_models.tokenizer.model import MaskTokenizer
from tests.benchmarks.harness import arguments, interleaved, machine, milliseconds, publish, ratio, table
from tests.benchmarks.procedures import both_networks
from tests.benchmarks.sizes import REDUCED, SMALL, Size

MASKS = 32


@torch.no_grad()
def batched(model: MaskTokenizer, image: Tensor, masks: Tensor) -> Tensor:
    """image (3, S, S), masks (B, 1, M, M) -> logits (B, M, M) of all codes."""
    return _decoded(model, masks, model.encode_image(image[None]))


@torch.no_grad()
def one_by_one(model: MaskTokenizer | PublishedTokenizer, image: Tensor, masks: Tensor) -> Tensor:
    """As `batched`; the published network gives probabilities."""
    return torch.cat([_decoded(model, mask[None], model.encode_image(image[None])) for mask in masks])


def _decoded(model: MaskTokenizer | PublishedTokenizer, masks: Tensor, embedding: Tensor) -> Tensor:
    codes = model.encode(masks).codes
    full_length = torch.full((len(masks),), codes.shape[1])
    return model.decode(codes, full_length, embedding)


def evaluation_times(size: Size, masks: int, repeats: int) -> dict[str, float]:
    """Processor seconds a mask."""
    published, ours = (network.eval() for network in both_networks(size))
    assert isinstance(ours, MaskTokenizer)
    generator = torch.Generator().manual_seed(0)
    side = size.ours.pixel_encoder.image_size
    image = torch.rand(3, side, side, generator=generator)
    coarse = (torch.rand(masks, 1, 8, 8, generator=generator) > 0.5).float()
    drawn = torch.nn.functional.interpolate(coarse, size=size.ours.mask_size)
    seconds = interleaved(
        {
            "published, one by one": lambda: one_by_one(published, image, drawn),
            "ours, one by one": lambda: one_by_one(ours, image, drawn),
            "ours, batched": lambda: batched(ours, image, drawn),
        },
        repeats,
    )
    return {name: time / masks for name, time in seconds.items()}


def main() -> None:
    options = arguments(__doc__, "many_masks", repeats=2).parse_args()
    rows, names = [], []
    for size in (REDUCED, SMALL):
        times = evaluation_times(size, MASKS, options.repeats)
        published, alone, together = times.values()
        names = list(times)
        rows.append(
            [
                size.name,
                *map(milliseconds, times.values()),
                ratio(together, alone),
                ratio(together, published),
            ]
        )
    columns = ["ms a mask", *names, "factor of batching", "factor together"]
    text = f"{MASKS} masks of one image, median of {options.repeats} ({machine()}):\n\n{table(columns, rows)}"
    publish("many_masks", text, options.write)


if __name__ == "__main__":
    main()
