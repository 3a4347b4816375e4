"""Boxes as text, for base models that are pre-trained to name places: `<box>c7 4 12 9 15</box>`.

First the square of the image that holds the box's centre, named as on a chess board: it says in one token
where the box is, as the first code of a mask does. Then the left, top, right and bottom edge in bins. Both
count over the image padded to a square at its right or bottom.
"""

import string
from collections.abc import Iterable
from typing import NamedTuple

from alto_models.altollm.vocabulary import BOX_END, BOX_START

BINS = 32  # along a side, for edges
SQUARES = 12  # along a side, for centres


class BoxBins(NamedTuple):
    """Bins (0 … BINS - 1) of the outermost pixels of a box."""

    left: int
    top: int
    right: int
    bottom: int


def box_bins(left: int, top: int, right: int, bottom: int, side: int) -> BoxBins:
    """Bins of a box given by its outermost pixels, in an image whose longer side has `side` pixels."""
    return BoxBins(*(int((edge + 0.5) / side * BINS) for edge in (left, top, right, bottom)))


def box_text(box: BoxBins) -> str:
    spans = ((box.left, box.right), (box.top, box.bottom))
    column, row = ((low + high + 1) * SQUARES // (2 * BINS) for low, high in spans)
    return f"{BOX_START}{' '.join([_square(row, column), *map(str, box)])}{BOX_END}"


def boxes_text(boxes: Iterable[BoxBins]) -> str:
    """Several boxes from left to right."""
    return "".join(box_text(box) for box in sorted(boxes, key=lambda box: (box.left + box.right, box)))


def box_words() -> list[str]:
    """Every word boxes are written with."""
    return [*square_names(), *(str(number) for number in range(BINS))]


def square_names() -> list[str]:
    return [_square(row, column) for row in range(SQUARES) for column in range(SQUARES)]


def _square(row: int, column: int) -> str:
    """Letters for columns, rows counted from 1 at the top."""
    return f"{string.ascii_lowercase[column]}{row + 1}"
