"""Plots and samples of a result on the asset's page.

Dagster shows Markdown of less than 1,000 characters in place, and longer texts behind a click. So the page gets links
to pictures that the page server scales down, in place, and small copies, which stay when the result is replaced.
"""

import base64
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import dagster as dg

SHOWN_WIDTH = 320  # pixels, in place: what Dagster has room for
VERSION_DIGITS = 12  # of the MD5 of a picture, in its link
KEPT_WIDTH = 720  # pixels, of a copy
KEPT_QUALITY = 60
KEPT_BYTES = 48_000  # of one copy
KEPT_BYTES_TOGETHER = 400_000  # of one materialization; the report has the rest
SHOWN_IN_PLACE = 1000  # characters; Dagster shows longer Markdown behind a click


def page_address() -> str:
    """Where `make ui` serves pages and pictures of the project (orchestration/page_server.py)."""
    return os.environ.get("ALTO_PAGES_URL", "http://127.0.0.1:3001")


def shown_pictures(root: Path, folder: Path) -> dict[str, Any]:
    """Links to as many PNG files in the folder's `pictures` as fit in place, each to just this version of it."""
    text = ""
    for path in _paths(folder):
        digest = hashlib.md5(path.read_bytes()).hexdigest()[:VERSION_DIGITS]
        address = f"{page_address()}/{path.relative_to(root).as_posix()}?md5={digest}"
        longer = f"{text}[![{path.stem}]({address}&width={SHOWN_WIDTH})]({address})\n\n"
        if len(longer) >= SHOWN_IN_PLACE:
            break
        text = longer
    return {"pictures": dg.MetadataValue.md(text)} if text else {}


def kept_pictures(folder: Path) -> dict[str, Any]:
    """Small copies of the PNG files in the folder's `pictures`."""
    metadata, left = {}, KEPT_BYTES_TOGETHER
    for path in _paths(folder):
        copy = small_copy(path)
        if len(copy) <= left:
            left -= len(copy)
            metadata[f"picture: {path.stem}"] = dg.MetadataValue.md(_inline(path.stem, copy))
    return metadata


def _paths(folder: Path) -> list[Path]:
    return sorted((folder / "pictures").glob("*.png"))


def small_copy(path: Path) -> bytes:
    """The picture as WebP (a twelfth of what PNG takes), at most KEPT_WIDTH wide and KEPT_BYTES long."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    width = KEPT_WIDTH
    while True:
        picture.thumbnail((width, 4 * width))
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=KEPT_QUALITY)
        if len(buffer.getvalue()) <= KEPT_BYTES:
            return buffer.getvalue()
        width = width * 2 // 3


def _inline(name: str, encoded: bytes) -> str:
    return f"![{name}](data:image/webp;base64,{base64.b64encode(encoded).decode()})"
