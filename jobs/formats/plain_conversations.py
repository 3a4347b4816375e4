"""Questions about images that are answered in words: captions, visual question answering, yes or no.

A JSON-lines file as LLaVA and InternVL write them, one conversation a line:

    {"image": "a.jpg", "conversations": [{"from": "human", "value": "A dog?"}, {"from": "gpt", "value": "No."}]}

Image paths are relative to the file's folder and stay within it. Other keys are ignored.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from alto_models.data.shards import Picture
from data_contracts.errors import InputError
from jobs.formats.raw import Fields, ProblemError, Text, parse_fields, parse_json, read_bytes, safe_path

IMAGE_PLACE = "<image>"
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")


class Message(Fields):
    speaker: Literal["human", "gpt"] = Field(alias="from")
    value: Text


class Line(Fields):
    image: Text
    conversations: list[Message]


@dataclass(frozen=True, kw_only=True)
class PlainConversation:
    """name: file and line it comes from. turns: (question, answer), at least one."""

    name: str
    image: Path
    turns: tuple[tuple[str, str], ...]


def read_plain_conversations(
    path: Path, sha256: str, first_signal_in: Callable[[str], str | None]
) -> list[PlainConversation]:
    """All conversations of a file, in its order.

    first_signal_in: what of a text the model would read as a signal; no text may hold any.
    Raises InputError naming file and line, and where the file has another checksum.
    """
    try:
        data = read_bytes(path, "file_readable")
    except ProblemError as error:
        raise InputError(f"general_vqa: {path}: {error.problem.value}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise InputError(
            f"general_vqa: {path} has checksum {found}, the parameters say {sha256}; "
            "correct `sha256` if the new contents are meant"
        )
    conversations = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        name = f"{path.name} line {number}"
        try:
            conversations.append(_conversation(line, path.parent, name, first_signal_in))
        except ProblemError as error:
            raise InputError(f"general_vqa: {name}: {error}") from None
    if not conversations:
        raise InputError(f"general_vqa: {path} holds no conversation; set `file` to null to do without")
    return conversations


def read_picture(conversation: PlainConversation) -> Picture:
    """(H, W, 3) uint8 RGB. Raises InputError naming the conversation where the image cannot be read."""
    try:
        data = read_bytes(conversation.image, "image_exists")
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # decoders raise nearly anything for damaged bytes
        raise InputError(
            f"general_vqa: {conversation.name}: image {conversation.image.name} cannot be read ({error})"
        ) from None


def _conversation(
    line: bytes, folder: Path, name: str, first_signal_in: Callable[[str], str | None]
) -> PlainConversation:
    fields = parse_fields(Line, parse_json(line, "line_readable"))
    image = safe_path(folder, fields.image)
    if not image.is_file():
        raise ProblemError("image_exists", f"no file {fields.image}")
    speakers = [message.speaker for message in fields.conversations]
    if not speakers or speakers != ["human", "gpt"] * (len(speakers) // 2):
        raise ProblemError("turns_alternate", f"speakers are {speakers}, expected human, gpt, human, gpt, …")
    texts = [message.value.strip() for message in fields.conversations]
    texts[0] = texts[0].removeprefix(IMAGE_PLACE).removesuffix(IMAGE_PLACE).strip()
    for text in texts:
        if not text:
            raise ProblemError("texts_present", "a message is empty")
        signal = IMAGE_PLACE if IMAGE_PLACE in text else first_signal_in(text)
        if signal is not None:
            raise ProblemError("plain_text", f"a message holds {signal!r}, which the model reads as a signal")
    return PlainConversation(name=name, image=image, turns=tuple(zip(texts[::2], texts[1::2], strict=True)))
