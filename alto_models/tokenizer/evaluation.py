"""Held-out quality of a mask tokenizer: every mask decoded from several prefixes of its codes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alto_models.data.crops import CropSettings, draw_crop, eligible_masks
from alto_models.data.masks import MaskImages
from alto_models.data.squares import fractions, square_pad_whole
from alto_models.metrics import batch_boundary, batch_iou
from alto_models.tokenizer.interface import Tokenizer
from alto_models.tokenizer.prefixes import decode_prefixes

WHOLE, CROP = "whole", "crop"


@dataclass(frozen=True, kw_only=True)
class View:
    """Masks to evaluate on one square.

    kind: WHOLE (single objects on the whole image) or CROP (merged masks on a crop, as in training).
    image (3, S, S) float32 in 0..1; masks (K, 1, M, M) float32, 0 or 1, none of them empty.
    """

    image_id: str
    kind: str
    image: Tensor
    masks: Tensor

    def to(self, device: torch.device) -> "View":
        return replace(self, image=self.image.to(device), masks=self.masks.to(device))


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One row a mask, N decoded lengths. Everything is measured at the tokenizer's mask resolution.

    lengths (N,): the codes kept; iou, boundary_iou (rows, N); codes (rows, L); predicted (rows,): length.
    predicted_iou, predicted_boundary_iou (rows,): at the predicted length.
    area, boundary_length (rows,): of the mask, in pixels.
    """

    image_ids: list[str]
    kinds: list[str]
    lengths: NDArray[np.int64]
    codes: NDArray[np.int64]
    predicted: NDArray[np.int64]
    iou: NDArray[np.float32]
    boundary_iou: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    predicted_boundary_iou: NDArray[np.float32]
    area: NDArray[np.int64]
    boundary_length: NDArray[np.int64]

    def mean_iou(self, kind: str | None = None, length: int | None = None) -> float:
        """Mean IoU of the views of `kind` (all if None), at `length`, or at the predicted one if None."""
        column = self.predicted_iou if length is None else self.iou[:, self.column(length)]
        rows = [kind in (None, own) for own in self.kinds]
        return float(column[rows].mean(dtype=np.float64))

    def column(self, length: int) -> int:
        return self.lengths.tolist().index(length)

    def codebook_usage(self, codebook_size: int) -> float:
        """Share of the codebook's entries that occur in any of the masks' codes."""
        return len(np.unique(self.codes)) / codebook_size


def held_out_views(images: MaskImages, settings: CropSettings, places: range, seed: int) -> list[View]:
    """For each of the images at these places its objects on the whole image, and one crop of merged masks."""
    views = []
    for index in places:
        image = images[index]
        objects = eligible_masks(image.masks, settings)
        if not objects:
            continue
        rles = [mask.rle for mask in objects]
        pixels, masks = square_pad_whole(image.image, rles, settings.image_size, settings.mask_size)
        crop = draw_crop(image, settings, np.random.default_rng([seed, index]))
        for kind, square, drawn in ((WHOLE, pixels, masks), (CROP, fractions(crop.image), crop.masks)):
            some = drawn[drawn.any(axis=(1, 2))]
            if len(some):
                views.append(
                    View(
                        image_id=image.image_id,
                        kind=kind,
                        image=torch.from_numpy(square),
                        masks=torch.from_numpy(some).unsqueeze(1),
                    )
                )
    return views


@torch.no_grad()
def evaluate(
    model: Tokenizer,
    views: Sequence[View],
    lengths: Sequence[int],
    advance: Callable[[], object] = lambda: None,
) -> Scores:
    """Score `model` on `views`; `advance` is called after each."""
    device = model.device
    chosen = torch.tensor(lengths, device=device)
    parts = []
    for view in views:
        parts.append(_score(model, view.to(device), chosen))
        advance()
    joined = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    codes, predicted, iou, boundary_iou, predicted_iou, predicted_boundary_iou, area, boundary = joined
    return Scores(
        image_ids=[view.image_id for view in views for _ in view.masks],
        kinds=[view.kind for view in views for _ in view.masks],
        lengths=chosen.cpu().numpy(),
        codes=codes,
        predicted=predicted,
        iou=iou,
        boundary_iou=boundary_iou,
        predicted_iou=predicted_iou,
        predicted_boundary_iou=predicted_boundary_iou,
        area=area,
        boundary_length=boundary,
    )


def _score(model: Tokenizer, view: View, lengths: Tensor) -> tuple[Tensor, ...]:
    embedding = model.encode_image(view.image.unsqueeze(0))
    encoding = model.encode(view.masks)
    masks = view.masks > 0.5
    fixed = decode_prefixes(model, encoding.codes, embedding, lengths) > 0
    adaptive = model.decode(encoding.codes, encoding.length, embedding).unsqueeze(1) > 0
    both = torch.cat([fixed, adaptive], dim=1)
    iou = batch_iou(both, masks)
    boundary_iou = batch_iou(batch_boundary(both), batch_boundary(masks))
    return (
        encoding.codes,
        encoding.length,
        iou[:, :-1],
        boundary_iou[:, :-1],
        iou[:, -1],
        boundary_iou[:, -1],
        masks.sum((1, 2, 3)),
        contour_length(masks.squeeze(1)),
    )


def contour_length(masks: Tensor) -> Tensor:
    """Number of mask pixels with a 4-neighbour outside: (B, M, M) bool -> (B,) int64."""
    padded = torch.nn.functional.pad(masks, [1, 1, 1, 1])
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    return (masks & ~inner).sum((1, 2))


def mean_mask_baseline(training_masks: Iterable[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """The one mask that serves all: pixels at least as likely as the mean area share of the masks (M, M)."""
    stacked = np.stack(list(training_masks))
    mean = stacked.mean(axis=0)
    return mean >= np.quantile(mean, 1 - stacked.mean())


def constant_iou(prediction: NDArray[np.bool_], views: Sequence[View]) -> NDArray[np.float32]:
    """IoU of one fixed mask (M, M) with each mask of the views: (rows,)."""
    fixed = torch.from_numpy(prediction)
    ious = torch.cat([batch_iou(fixed, view.masks[:, 0] > 0.5) for view in views])
    return np.asarray(ious.numpy(), np.float32)
