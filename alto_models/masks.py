"""Masks as run lengths: coding, measuring and sampling without decoding whole images.

Run-length encodings are COCO's: pixels in column-major order, runs of 0 and 1 in turn, starting with
0; "counts" is either a list of runs or its compressed ASCII form (cocoapi, `common/maskApi.c`).
`pycocotools` trusts such strings blindly, so everything from outside is checked here first.
Letters in shapes: H height, W width of the image; R runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

Runs = NDArray[np.int64]
BinaryMask = NDArray[np.uint8]

# maskApi.c keeps a run in 32 bits: at most seven groups of five bits.
MAX_GROUPS_PER_RUN = 7


class MaskError(ValueError):
    """A mask from outside is malformed; `rule` names what is wrong, the message shows the value."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class Rle(NamedTuple):
    """A mask in compressed COCO form."""

    height: int
    width: int
    counts: str


class Box(NamedTuple):
    """Pixels covered: columns x … x+width-1, rows y … y+height-1; all zero for an empty mask."""

    x: int
    y: int
    width: int
    height: int


def encode(mask: NDArray) -> Rle:
    """Rle of a (H, W) mask; everything that is not 0 belongs to it."""
    height, width = mask.shape
    counts = coco.encode(np.asfortranarray(mask != 0, dtype=np.uint8))["counts"]
    return Rle(height, width, counts.decode("ascii"))


def decode(rle: Rle) -> BinaryMask:
    """(H, W) uint8 mask of 0 and 1. Raises MaskError for a malformed rle."""
    check_runs(parse_counts(rle.counts), rle.height, rle.width)
    return coco.decode(_as_coco(rle))


def union(rles: Sequence[Rle]) -> Rle:
    """The pixels of any of the (valid, equally large, at least one) masks."""
    parts = [_intervals(parse_counts(rle.counts)) for rle in rles]
    first, stop = (np.concatenate(edges) for edges in zip(*parts, strict=True))
    order = np.argsort(first, kind="stable")
    first, stop = _joined(first[order], np.maximum.accumulate(stop[order]))
    height, width = rles[0].height, rles[0].width
    return compress_runs(_runs_between(first, stop, height * width), height, width)


def difference(rle: Rle, other: Rle) -> Rle:
    """The pixels of the first (valid) mask that are not in the second of the same size."""
    runs = parse_counts(other.counts)
    outside = runs[1:] if runs[0] == 0 else np.append(0, runs)
    kept = coco.merge(
        [_as_coco(rle), _as_coco(compress_runs(outside, rle.height, rle.width))], intersect=True
    )
    return Rle(rle.height, rle.width, kept["counts"].decode("ascii"))


def parse_counts(counts: str) -> Runs:
    """Runs (R,) of a compressed string. Raises MaskError(rule "mask_readable") if it is not one.

    Each run is stored in groups of five bits, lowest first, a sixth bit saying that more follow and the
    top bit of the last group being the sign; from the fourth on a run is the difference to the one two
    before it.
    """
    try:
        groups = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise MaskError("mask_readable", f"counts are not ASCII: {counts[:40]!r}") from None
    if len(groups) == 0 or groups.min() < 0 or groups.max() > 63:
        raise MaskError("mask_readable", f"counts are not a compressed RLE: {counts[:40]!r}")
    last = (groups & 0x20) == 0
    if not last[-1]:
        raise MaskError("mask_readable", f"counts end inside a run: …{counts[-40:]!r}")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_GROUPS_PER_RUN:
        raise MaskError("mask_readable", f"counts hold a run beyond 32 bits: {counts[:40]!r}")
    shifts = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((groups & 0x1F) << shifts, starts)
    runs -= ((groups[ends] & 0x10) != 0) * (np.int64(1) << (5 * lengths))
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def runs_of_list(counts: object) -> Runs:
    """Runs (R,) of uncompressed counts. Raises MaskError(rule "mask_readable") unless a list of integers."""
    if not isinstance(counts, list) or not all(type(run) is int for run in counts):
        raise MaskError("mask_readable", "counts are neither a string nor a list of integers")
    if any(abs(run) >= 2**32 for run in counts):
        raise MaskError("mask_readable", "counts hold a run beyond 32 bits")
    return np.array(counts, np.int64)


def check_runs(runs: Runs, height: int, width: int) -> None:
    """Raises MaskError (rule "runs_not_negative" or "runs_fill_mask") unless runs tile a (H, W) mask."""
    if len(runs) and runs.min() < 0:
        raise MaskError("runs_not_negative", f"negative run {runs.min()}")
    if runs.sum() != height * width:
        raise MaskError("runs_fill_mask", f"runs add up to {runs.sum()}, not {height} x {width}")


def has_empty_runs(runs: Runs) -> bool:
    """Whether a run other than the first is empty: allowed, but pycocotools' merging fails on them."""
    return bool((runs[1:] == 0).any())


def compress_runs(runs: Runs, height: int, width: int) -> Rle:
    """Rle of runs, without empty ones. Raises MaskError as check_runs."""
    check_runs(runs, height, width)
    runs = _runs_between(*_intervals(runs), height * width)
    uncompressed = {"size": [height, width], "counts": runs.tolist()}
    return Rle(height, width, coco.frPyObjects(uncompressed, height, width)["counts"].decode("ascii"))


def rasterise_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Rle:
    """Union of polygons [x0, y0, x1, y1, …] (pixels), as pycocotools draws them.

    Raises MaskError(rule "mask_readable") unless each has at least three finite points near the image:
    pycocotools walks along the outline point by point, so a far point costs time and memory.
    """
    if not polygons:
        raise MaskError("mask_readable", "no polygon")
    reach = 2 * max(height, width)
    for polygon in polygons:
        if not isinstance(polygon, list):
            raise MaskError("mask_readable", f"a polygon is of type {type(polygon).__name__}")
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            raise MaskError("mask_readable", "a polygon is not a list of numbers") from None
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise MaskError("mask_readable", f"a polygon needs 3 points, got {len(points)} numbers")
        if not np.isfinite(points).all() or np.abs(points).max() > reach:
            raise MaskError("mask_readable", "a polygon has points that are not finite or far outside")
    merged = coco.merge(coco.frPyObjects([list(map(float, p)) for p in polygons], height, width))
    return Rle(height, width, merged["counts"].decode("ascii"))


def area(runs: Runs) -> int:
    """Number of pixels in the mask."""
    return int(runs[1::2].sum())


def box(runs: Runs, height: int) -> Box:
    """Smallest box around the mask of valid runs."""
    first, stop = _intervals(runs)
    if len(first) == 0:
        return Box(0, 0, 0, 0)
    last = stop - 1
    left, right = int(first[0] // height), int(last[-1] // height)
    several_columns = (first // height) != (last // height)
    if several_columns.any():
        top, bottom = 0, height - 1
    else:
        top, bottom = int((first % height).min()), int((last % height).max())
    return Box(left, top, right - left + 1, bottom - top + 1)


def boundary_length(runs: Runs, height: int) -> int:
    """Number of mask pixels of which at least one of the four neighbours is not in the mask.

    What lies outside the image is not in the mask. Inner pixels are counted as those whose left and right
    neighbours are in the mask (the mask shifted by a column either way) and which are neither first nor
    last of a run within their column.
    """
    first, stop = _intervals(runs)
    if len(first) == 0:
        return 0
    inner_first, inner_stop = _split_at_columns(first, stop, height)
    inner_first, inner_stop = inner_first + 1, np.maximum(inner_stop - 1, inner_first + 1)
    edges = np.concatenate([inner_first, first - height, first + height])
    closes = np.concatenate([inner_stop, stop - height, stop + height])
    positions = np.concatenate([edges, closes])
    order = np.argsort(positions, kind="stable")
    change = np.concatenate([np.ones(len(edges), np.int64), -np.ones(len(closes), np.int64)])
    covered_by = np.cumsum(change[order])[:-1]
    inner = int(np.diff(positions[order])[covered_by == 3].sum())
    return area(runs) - inner


def sample(runs: Runs, height: int, width: int, rows: NDArray, columns: NDArray) -> NDArray[np.bool_]:
    """Mask values at the grid rows (h,) x columns (w,), both rising: (h, w); False outside the image.

    With rows and columns from `grid` this is cropping and nearest-neighbour resizing in one, without
    decoding the whole mask.
    """
    return sample_union([runs], height, width, rows, columns)


def sample_union(
    masks: Sequence[Runs], height: int, width: int, rows: NDArray, columns: NDArray
) -> NDArray[np.bool_]:
    """As `sample`, of the pixels that any of the (valid, at least one) masks has.

    Grid points inside the image are counted through in the order of runs, a column that occurs several times once.
    Every stretch of ones adds 1 from the first point in it to the first point behind it.
    """
    top, bottom = np.searchsorted(rows, [0, height])
    left, right = np.searchsorted(columns, [0, width])
    inner_columns, column_of_point = np.unique(columns[left:right], return_inverse=True)
    stops = [np.cumsum(runs) for runs in masks]
    count = int(bottom - top)
    points = len(inner_columns) * count
    # Before each image column / row: grid columns and rows.
    columns_before = np.searchsorted(inner_columns, np.arange(width + 2))
    rows_before = np.searchsorted(rows[top:bottom], np.arange(height))

    def first_point(pixels: Runs) -> Runs:
        """The first grid point at or behind each pixel."""
        column, row = np.divmod(pixels, height)
        has_points = columns_before[column + 1] > columns_before[column]
        return columns_before[column] * count + has_points * rows_before[row]

    begin = first_point(np.concatenate([stop[0::2][: len(stop) // 2] for stop in stops]))
    end = first_point(np.concatenate([stop[1::2] for stop in stops]))
    change = np.bincount(begin, minlength=points + 1) - np.bincount(end, minlength=points + 1)
    covered = np.cumsum(change[:points]) > 0
    sampled = np.zeros((len(rows), len(columns)), np.bool_)
    sampled[top:bottom, left:right] = covered.reshape(len(inner_columns), count)[column_of_point].T
    return sampled


def shrink_runs(runs: Runs, height: int, width: int, new_height: int, new_width: int) -> Rle:
    """Rle of a (H, W) mask of valid runs made smaller, pixel for pixel as `resize_nearest` makes it.

    Every new pixel is one of the old ones and their order stays, so a run begins after as many new pixels
    as are taken from before its old begin. Raises ValueError where a side would grow.
    """
    if new_height > height or new_width > width:
        raise ValueError(f"{new_height} x {new_width} is larger than {height} x {width}")
    rows, columns = grid(0, height, new_height), grid(0, width, new_width)
    column, row = np.divmod(np.cumsum(runs), height)
    left_of, up_to = (np.searchsorted(columns, column, side=side) for side in ("left", "right"))
    borders = left_of * new_height + (up_to - left_of) * np.searchsorted(rows, row)
    return compress_runs(np.diff(borders, prepend=0), new_height, new_width)


def grid(start: float, length: float, count: int) -> NDArray[np.int64]:
    """Pixels under the centres of `count` equal cells on [start, start + length)."""
    return np.floor(start + (np.arange(count) + 0.5) * (length / count)).astype(np.int64)


def resize_nearest(mask: NDArray, height: int, width: int) -> NDArray:
    """(H, W) mask at another size by nearest neighbour, so that it stays binary."""
    return mask[np.ix_(grid(0, mask.shape[0], height), grid(0, mask.shape[1], width))]


def crop_square(array: NDArray, left: int, top: int, side: int, fill: int = 0) -> NDArray:
    """Square (side, side, …) cut from a (H, W, …) array; `fill` where it lies outside."""
    height, width = array.shape[:2]
    square = np.full((side, side, *array.shape[2:]), fill, array.dtype)
    x0, x1 = max(left, 0), min(left + side, width)
    y0, y1 = max(top, 0), min(top + side, height)
    if x0 < x1 and y0 < y1:
        square[y0 - top : y1 - top, x0 - left : x1 - left] = array[y0:y1, x0:x1]
    return square


def _as_coco(rle: Rle) -> dict:
    return {"size": [rle.height, rle.width], "counts": rle.counts.encode("ascii")}


def _intervals(runs: Runs) -> tuple[Runs, Runs]:
    """First pixel and stop (one past the last) of every stretch of ones; empty runs are skipped."""
    stops = np.cumsum(runs)
    first, stop = stops[0::2], stops[1::2]
    first = first[: len(stop)]
    kept = stop > first
    return _joined(first[kept], stop[kept])


def _joined(first: Runs, stop: Runs) -> tuple[Runs, Runs]:
    """Intervals in rising order with those that touch or overlap made one; stop must not fall."""
    if len(first) == 0:
        return first, stop
    apart = first[1:] > stop[:-1]
    return first[np.append(True, apart)], stop[np.append(apart, True)]


def _runs_between(first: Runs, stop: Runs, pixels: int) -> Runs:
    """Runs of a mask of so many pixels that has ones on these intervals (sorted, apart)."""
    borders = np.stack([first, stop], axis=1).ravel()
    runs = np.diff(borders, prepend=0, append=pixels)
    return runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs


def _split_at_columns(first: Runs, stop: Runs, height: int) -> tuple[Runs, Runs]:
    """Intervals cut where a new image column begins."""
    first_column, last_column = first // height, (stop - 1) // height
    pieces = last_column - first_column + 1
    owner = np.repeat(np.arange(len(first)), pieces)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    column_start = (first_column[owner] + nth) * height
    return np.maximum(first[owner], column_start), np.minimum(stop[owner], column_start + height)
