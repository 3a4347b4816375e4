"""Measures what a contract judges: image sizes, and masks from their runs, beside the publisher's claims."""

import hashlib
import io
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from alto_models import masks as mask_arithmetic
from alto_models.masks import MaskError, Rle, Runs
from data_contracts.rules import Convention
from jobs.formats.raw import VALUE_CHARACTERS, Problem, ProblemError, RawImage, RawMask, RawRow

IMAGE_FORMATS = ("JPEG", "PNG")
IMAGE_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"}

Values = dict[str, Any]


MAX_SIDE = 2**31


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """The image as it is stored: bytes of a file, and its sides in pixels."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class MeasuredMask:
    """rle is None where the mask cannot be used; values: columns of the contract.
    stored_rle: the mask at the size its image is stored in, None where that is its own."""

    raw: RawMask
    rle: Rle | None = None
    stored_rle: Rle | None = None
    values: Values = field(default_factory=dict)
    problem: Problem | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredRow:
    raw: RawRow
    masks: tuple[MeasuredMask, ...]


@dataclass(frozen=True, kw_only=True)
class MeasuredImage:
    """size: (width, height) of the decoded image, None where it does not decode.
    sha256: of the published file, in hexadecimal.
    stored: another form in which it is stored, None where it is the published file."""

    raw: RawImage
    sha256: str
    size: tuple[int, int] | None
    stored: StoredImage | None = None
    problem: Problem | None
    rows: tuple[MeasuredRow, ...]

    def without_useless_bytes(self) -> "MeasuredImage":
        """The image without the bytes of its file where it cannot be used."""
        return self if self.problem is None else replace(self, raw=replace(self.raw, data=b""))


def measure_image(raw: RawImage, convention: Convention, max_pixels: int) -> MeasuredImage:
    """Decodes the image once, and measures its masks without decoding them."""
    size, problem = None, raw.problem
    if problem is None:
        try:
            size = image_size(raw.data, max_pixels)
        except ProblemError as error:
            problem = error.problem
    rows = tuple(
        MeasuredRow(raw=row, masks=tuple(measure_mask(mask, size, convention) for mask in row.masks))
        for row in raw.rows
    )
    sha256 = hashlib.sha256(raw.data).hexdigest()
    return MeasuredImage(raw=raw, sha256=sha256, size=size, problem=problem, rows=rows)


def image_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """(width, height) of the stored pixels, after decoding them all; EXIF orientation is not applied.

    Raises ProblemError "image_decodes" or "image_pixel_limit".
    """
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ProblemError("image_pixel_limit", f"{image.width} x {image.height} pixels")
            if image.mode not in IMAGE_MODES:
                raise ProblemError("image_decodes", f"pixels of mode {image.mode}")
            if image.format == "PNG" and getattr(image, "is_animated", False):
                raise ProblemError(
                    "image_decodes", "an animation: which of its pictures is meant is not said"
                )
            size = image.size
            # A JPEG decoded at an eighth is read to its last byte all the same, in half the time.
            image.draft("L", (1, 1))
            image.load()
            return size
    except ProblemError:
        raise
    except Image.DecompressionBombError as error:
        raise ProblemError("image_pixel_limit", error) from None
    except Exception as error:  # decoders raise nearly anything for damaged bytes
        raise ProblemError("image_decodes", f"{len(data)} bytes: {error}") from None


def measure_mask(raw: RawMask, image_size: tuple[int, int] | None, convention: Convention) -> MeasuredMask:
    """image_size: (width, height), None where it is unknown: the mask is then not measured."""
    values: Values = {"predicted_iou": raw.predicted_iou, "stability_score": raw.stability_score}
    if raw.problem is not None or image_size is None:
        return MeasuredMask(raw=raw, values=values, problem=raw.problem)
    width, height = image_size
    try:
        mask_height, mask_width, runs, counts = _read_segmentation(raw.segmentation, height, width)
    except (MaskError, OverflowError, MemoryError) as error:
        value = str(error)[:VALUE_CHARACTERS]
        return MeasuredMask(raw=raw, values=values, problem=Problem(rule="mask_readable", value=value))
    values |= {
        "mask_height": mask_height,
        "mask_width": mask_width,
        "runs_total": int(runs.sum()),
        "smallest_run": int(runs.min()) if len(runs) else 0,
    }
    fits = (mask_height, mask_width) == (height, width)
    if not fits or values["smallest_run"] < 0 or values["runs_total"] != height * width:
        return MeasuredMask(raw=raw, values=values)
    if counts and not mask_arithmetic.has_empty_runs(runs):
        rle = Rle(height, width, counts)
    else:
        rle = mask_arithmetic.compress_runs(runs, height, width)
    values |= _measured_runs(runs, height)
    values |= _compared(raw, values, convention, is_polygon=isinstance(raw.segmentation, list))
    return MeasuredMask(raw=raw, rle=rle, values=values)


def _read_segmentation(segmentation: object, height: int, width: int) -> tuple[int, int, Runs, str]:
    """Height, width, runs and, where it was compressed, the string of a COCO segmentation."""
    if isinstance(segmentation, list):
        rle = mask_arithmetic.rasterise_polygons(segmentation, height, width)
        return height, width, mask_arithmetic.parse_counts(rle.counts), rle.counts
    if not isinstance(segmentation, dict):
        raise MaskError("mask_readable", f"segmentation is of type {type(segmentation).__name__}")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if (
        not isinstance(size, list)
        or [type(side) for side in size] != [int, int]
        or not 0 < min(size) <= max(size) < MAX_SIDE
    ):
        raise MaskError("mask_readable", f"size {size!r:.100}")
    if isinstance(counts, str):
        return size[0], size[1], mask_arithmetic.parse_counts(counts), counts
    return size[0], size[1], mask_arithmetic.runs_of_list(counts), ""


def _measured_runs(runs: Runs, height: int) -> Values:
    box = mask_arithmetic.box(runs, height)
    return {
        "area": mask_arithmetic.area(runs),
        "box_x": box.x,
        "box_y": box.y,
        "box_width": box.width,
        "box_height": box.height,
        "boundary_length": mask_arithmetic.boundary_length(runs, height),
    }


def _compared(raw: RawMask, measured: Values, convention: Convention, is_polygon: bool) -> Values:
    """Claims, how far they are off, and what the convention allows."""
    values: Values = {}
    if raw.stated_area is not None:
        values["stated_area"] = raw.stated_area
        values["area_error"] = abs(raw.stated_area - measured["area"])
        share = convention.outline_area_tolerance if is_polygon else 0
        values["area_tolerance"] = share * measured["boundary_length"]
    if raw.stated_box is not None:
        x, y, width, height = raw.stated_box
        width, height = width + convention.box_shortfall, height + convention.box_shortfall
        stated = (x, y, x + width, y + height)
        # Published boxes are rounded to hundredths, which may carry their sums just over the border.
        edges = ("stated_left", "stated_top", "stated_right", "stated_bottom")
        values |= {name: round(edge, 1) for name, edge in zip(edges, stated, strict=True)}
        left, top = measured["box_x"], measured["box_y"]
        actual = (left, top, left + measured["box_width"], top + measured["box_height"])
        values["box_error"] = max(abs(a - b) for a, b in zip(stated, actual, strict=True))
        values["box_tolerance"] = convention.outline_box_tolerance if is_polygon else convention.box_tolerance
    return values
