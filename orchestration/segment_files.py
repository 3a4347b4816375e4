"""Image files to a folder of masks, overlays and JSON lines, which appears whole or not at all."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageFilter
from tqdm import tqdm

from alto_models.altollm.api import Segmentation, Segmenter
from alto_models.data.files import BoolMask, encode_mask, read_image
from alto_models.data.shards import Picture
from data_contracts.errors import InputError, first_line
from orchestration.atomic_folders import new_folder, require_new
from orchestration.token_lines import safe_name

LINES_FILE = "segments.jsonl"
MASK_COLOUR = (213, 94, 0)
OUTLINE_COLOUR = (255, 255, 255)
OVERLAY_QUALITY = 90  # of a JPEG: as PNG, the overlay of a photo is ten times as large


class SegmentLine(Segmentation):
    """image: file it was found in. mask, overlay: names of files in the folder of the line."""

    image: str
    mask_file: str
    overlay_file: str


def segment_files(
    segmenter: Segmenter,
    images: Sequence[Path],
    expressions: Sequence[str],
    out: Path,
    *,
    adaptive: bool,
    max_tokens: int | None,
) -> list[SegmentLine]:
    """Fill the new folder `out` and return the lines of its LINES_FILE: for each image all expressions.

    Raises InputError naming the file, and leaves nothing then.
    """
    require_new(out)
    segmenter.check(expressions, max_tokens)
    lines = []
    try:
        with (
            new_folder(out) as folder,
            tqdm(total=len(images), desc="Segmenting", unit="image", disable=None) as bar,
        ):
            for number, path in enumerate(images, start=1):
                picture = read_image(path)
                try:
                    found = segmenter.segment(picture, expressions, adaptive=adaptive, max_tokens=max_tokens)
                except InputError as error:
                    raise InputError(f"{path}: {error}") from None
                prefix = f"{number:04d}_{safe_name(str(path))}"
                for index, one in enumerate(found, start=1):
                    lines.append(write_one(folder, f"{prefix}_{index:02d}", path, picture, one))
                bar.update(1)
            text = "".join(f"{line.model_dump_json()}\n" for line in lines)
            (folder / LINES_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror or first_line(error)})") from None
    return lines


def write_one(folder: Path, name: str, path: Path, picture: Picture, found: Segmentation) -> SegmentLine:
    line = SegmentLine(
        image=os.fsencode(path).decode("utf-8", "replace"),
        mask_file=f"{name}.png",
        overlay_file=f"{name}_overlay.jpg",
        **found.model_dump(),
    )
    mask = found.mask
    (folder / line.mask_file).write_bytes(encode_mask(mask))
    (folder / line.overlay_file).write_bytes(encode_overlay(picture, mask))
    return line


def encode_overlay(picture: Picture, mask: BoolMask) -> bytes:
    """JPEG of an (H, W, 3) uint8 image with the (H, W) mask tinted and outlined."""
    image, inside = Image.fromarray(picture), Image.fromarray(mask).convert("L")
    tinted = Image.blend(image, Image.new("RGB", image.size, MASK_COLOUR), 0.5)
    outline = ImageChops.subtract(inside, inside.filter(ImageFilter.MinFilter(3)))
    shown = Image.composite(tinted, image, inside)
    shown.paste(OUTLINE_COLOUR, mask=outline)
    data = io.BytesIO()
    shown.save(data, "JPEG", quality=OVERLAY_QUALITY)
    return data.getvalue()
