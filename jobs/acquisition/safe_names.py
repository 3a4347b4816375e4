"""Names that came from outside (members of archives, keys of objects, parameters) as paths that stay inside."""

import re
from pathlib import PurePosixPath

MAX_PATH_CHARACTERS = 1000
MAX_NAME_BYTES = 255
_DRIVE = re.compile(r"^[A-Za-z]:")


class UnsafeName(ValueError):
    """The name leads, or may lead, elsewhere."""


def relative_path(name: str) -> PurePosixPath:
    """The name as a path below any folder. Raises UnsafeName saying what it is instead.

    A backslash separates folders, as in archives made on Windows.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or _DRIVE.match(name):
        raise UnsafeName("an absolute path")
    if ".." in path.parts:
        raise UnsafeName("a path with `..`")
    if not path.parts:
        raise UnsafeName("an empty path")
    if not name.isprintable():
        raise UnsafeName("a path with characters that cannot be printed")
    if len(name) > MAX_PATH_CHARACTERS or any(len(part.encode()) > MAX_NAME_BYTES for part in path.parts):
        raise UnsafeName("a path that is too long")
    return path


def shown(name: str) -> str:
    """A name from outside as part of a message: one line, and not for ever."""
    return f"`{name.encode('unicode_escape').decode('ascii')[:100]}`"
