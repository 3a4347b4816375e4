"""A file on its way in: `NAME.part` until every byte is there, and only then `NAME`."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError


class Origin(BaseModel):
    """The version of a file that a part's bytes are of.

    size: bytes, None where the server does not say. validator: strong ETag, or the date of the last change;
    None where the server gives neither, and then a part cannot be continued.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int | None
    validator: str | None


class PartFile:
    """`NAME.part`, and `NAME.part.json`, which tells what it is part of."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._origin_path = target.with_name(target.name + ".part.json")

    @property
    def size(self) -> int:
        """Bytes received."""
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self) -> Origin | None:
        """What the part is of; None for a part that is not known to be of anything."""
        try:
            return Origin.model_validate_json(self._origin_path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def begin(self, origin: Origin) -> None:
        """Empty the part; what follows is of `origin`."""
        # In this order: at no moment does a part lie beside the origin of another.
        self.discard()
        temporary = self._origin_path.with_suffix(".tmp")
        temporary.write_text(origin.model_dump_json())
        temporary.replace(self._origin_path)

    def append(self) -> BinaryIO:
        return self.path.open("ab")

    def digest(self, algorithm: str) -> str:
        """Hexadecimal digits; algorithm: "md5" or "sha256"."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(
                file, lambda: hashlib.new(algorithm, usedforsecurity=False)
            ).hexdigest()

    def finish(self) -> None:
        """Give the part its final name, once its bytes are on the disk."""
        with self.append() as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)
        self._origin_path.unlink(missing_ok=True)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._origin_path.unlink(missing_ok=True)
