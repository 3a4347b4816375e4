"""Mask files to token lines and back. A token line is one mask as a line of JSON.

Everything is read, checked and computed before the caller writes anything: a wrong input leaves no output.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from alto_models.checkpoint import replace_atomically
from alto_models.data.files import encode_mask, read_image, read_mask
from alto_models.tokenizer.api import TokenizedMask, TrainedTokenizer, check_wanted
from data_contracts.errors import InputError

NAME_LIMIT = 50  # characters of a mask's name in the name of its PNG file


class TokenLine(TokenizedMask):
    """mask: file it came from. image: file it is decoded with; null: the model's stand-in for an image.

    Fields beyond these are ignored when read.
    """

    mask: str | None = None
    image: str | None = None


class WrittenMask(BaseModel):
    """A file written by `alto detokenize`. line: of the input, from 1. image: as in TokenLine."""

    line: int
    file: str
    image: str | None


@dataclass(frozen=True, kw_only=True)
class PlacedLine:
    """A token line with its number, from 1, and what messages call its place."""

    number: int
    place: str
    content: TokenLine


def pair_images(masks: Sequence[Path], images: Sequence[Path]) -> list[Path | None]:
    """The image of each mask. Raises InputError unless there is none, one, or one for each mask."""
    if len(images) <= 1:
        return [images[0] if images else None] * len(masks)
    if len(images) != len(masks):
        raise InputError(f"{len(images)} images for {len(masks)} masks: give none, one, or one for each mask")
    return list(images)


def tokenize_files(
    tokenizer: TrainedTokenizer,
    masks: Sequence[Path],
    images: Sequence[Path | None],
    quality: float | None = None,
    max_tokens: int | None = None,
    threshold: int | None = None,
) -> list[TokenLine]:
    """Lines in the order of the masks; an image is read, and encoded where `quality` needs it, once.

    quality, max_tokens: as in `TrainedTokenizer.tokenize`; threshold: as in `read_mask`.
    Raises InputError naming the file.
    """
    check_wanted(quality, max_tokens)
    lines: dict[int, TokenLine] = {}
    with tqdm(total=len(masks), desc="Tokenizing", unit="mask", disable=None) as bar:
        for image_name, members in by_image([None if image is None else str(image) for image in images]):
            image = None if image_name is None else read_image(Path(image_name))
            context = tokenizer.encode_image(image) if image is not None and quality is not None else image
            for index in members:
                mask = read_mask(masks[index], threshold)
                try:
                    tokenized = tokenizer.tokenize(mask, context, quality=quality, max_tokens=max_tokens)
                except InputError as error:
                    raise InputError(f"{masks[index]}: {error}") from None
                lines[index] = TokenLine(**tokenized.model_dump(), mask=str(masks[index]), image=image_name)
                bar.update(1)
    return [lines[index] for index in range(len(masks))]


def read_lines(file: Path | None, image: Path | None = None) -> list[PlacedLine]:
    """The token lines of a file (None: of standard input), blank lines left out.

    image: takes the place of the image of every line. Raises InputError naming the line.
    """
    source = "standard input" if file is None else str(file)
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from None
    changes = {} if image is None else {"image": str(image)}
    lines = []
    for number, text in enumerate(data.split(b"\n"), start=1):
        if text.strip():
            place = f"{source}, line {number}"
            content = parse_line(text, place).model_copy(update=changes)
            lines.append(PlacedLine(number=number, place=place, content=content))
    if not lines:
        raise InputError(f"{source}: no line of codes; `alto tokenize` prints them")
    return lines


def parse_line(text: bytes, place: str) -> TokenLine:
    try:
        return TokenLine.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = "".join(f"{part}: " for part in first["loc"][:1])
        raise InputError(f"{place}: {field}{first['msg']}") from None


def detokenize_lines(tokenizer: TrainedTokenizer, lines: Sequence[PlacedLine]) -> list[bytes]:
    """The mask of each line as a PNG of its original size; an image is encoded once.

    Raises InputError naming the line.
    """
    pictures: dict[int, bytes] = {}
    with tqdm(total=len(lines), desc="Decoding", unit="mask", disable=None) as bar:
        for image_name, members in by_image([line.content.image for line in lines]):
            encoded = None
            for index in members:
                try:
                    if image_name is not None and encoded is None:
                        encoded = tokenizer.encode_image(read_image(Path(image_name)))
                    pictures[index] = encode_mask(tokenizer.detokenize(lines[index].content, encoded))
                except InputError as error:
                    raise InputError(f"{lines[index].place}: {error}") from None
                bar.update(1)
    return [pictures[index] for index in range(len(lines))]


def write_masks(folder: Path, lines: Sequence[PlacedLine], pictures: Sequence[bytes]) -> list[WrittenMask]:
    """Write each line's PNG atomically, as LINE_NAME.png: the number of the line keeps names apart.

    Raises InputError where a file cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for line, picture in zip(lines, pictures, strict=True):
            path = folder / f"{line.number:04d}_{safe_name(line.content.mask)}.png"
            replace_atomically(path, partial(Path.write_bytes, data=picture))
            written.append(WrittenMask(line=line.number, file=str(path), image=line.content.image))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror})") from None
    return written


def safe_name(mask: str | None) -> str:
    """Name of a mask's file without its folders and endings, fit for a file name; never a path."""
    return re.sub(r"[^\w-]", "_", Path(mask or "mask").stem)[:NAME_LIMIT]


def by_image(images: Sequence[str | None]) -> Iterator[tuple[str | None, list[int]]]:
    """Indices of equal images, those without one first."""
    order = sorted(
        range(len(images)), key=lambda index: (images[index] is not None, images[index] or "", index)
    )
    for image, members in groupby(order, key=lambda index: images[index]):
        yield image, list(members)
