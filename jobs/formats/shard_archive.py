"""Tar shards from outside, never unpacked: what they hold is listed first, then read at its place.

Nothing in an archive is believed: links and unsafe paths are refused, an archive that is cut off or damaged
says so, and what follows a damaged stretch is still read.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from jobs.formats.raw import MAX_FILE_BYTES, ProblemError

# SA-1B's annotations of an image have a tenth of a megabyte; JSON takes many times its size in memory.
MAX_BYTES = {".jpg": MAX_FILE_BYTES, ".json": 16 * 2**20}
BLOCK = tarfile.BLOCKSIZE


def shard_members(archive: Path) -> Iterator[tarfile.TarInfo | ProblemError]:
    """The files of the pairs, and a ProblemError for whatever else an archive holds or lacks."""
    try:
        with archive.open("rb") as file:
            for item in _members(file, archive.name):
                problem = item if isinstance(item, ProblemError) else _member_problem(item)
                if problem is not None:
                    yield problem
                elif isinstance(item, tarfile.TarInfo) and not item.isdir():
                    yield item
    except OSError as error:  # its own text would name the folder, which is another in every run
        yield ProblemError("archive_readable", f"{archive.name}: {error.strerror or error}")
    except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:
        yield ProblemError("archive_readable", f"{archive.name}: {error}")


def _members(file: BinaryIO, name: str) -> Iterator[tarfile.TarInfo | ProblemError]:
    """Every member, and a ProblemError for each stretch between them that is neither member nor padding."""
    end = 0  # of the member before, padding included
    # Blocks that are no header would end an archive without a word; so they are skipped, and looked for here.
    with tarfile.open(fileobj=file, mode="r:", ignore_zeros=True) as tar:
        while (member := tar.next()) is not None:
            if member.size < 0 or member.offset < end:
                raise tarfile.ReadError(f"{member.name}: a size or place that cannot be")
            if (damage := _damaged_from(file, end, member.offset)) is not None:
                yield ProblemError(
                    "archive_readable", f"{name}: damaged from byte {damage} to {member.offset}"
                )
            end = tar.offset
            yield member
    length = file.seek(0, 2)
    if (damage := _damaged_from(file, end, length)) is not None:
        yield ProblemError("archive_readable", f"{name}: damaged from byte {damage} to its end")
    elif length < end + BLOCK:
        yield ProblemError("archive_readable", f"{name}: cut off at byte {length}, before its end mark")


def _damaged_from(file: BinaryIO, start: int, stop: int) -> int | None:
    """Place of the first block that is neither zero nor a header of the whole archive."""
    place = start
    while place < stop:
        file.seek(place)
        block = file.read(min(BLOCK, stop - place))
        if block.strip(b"\0"):
            size = _global_header_size(block)
            if size is None:
                return place
            place += -(-size // BLOCK) * BLOCK
        place += BLOCK
    return None


def _global_header_size(block: bytes) -> int | None:
    """Bytes that follow a header of type "g", None for any other block."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return header.size if header.type == tarfile.XGLTYPE and header.size >= 0 else None


def _member_problem(member: tarfile.TarInfo) -> ProblemError | None:
    path = PurePosixPath(member.name)
    if member.isdir():
        return None
    if not member.isreg() or member.issparse() or path.is_absolute() or ".." in path.parts:
        return ProblemError("archive_member", f"{member.name}: link, device, sparse file or unsafe path")
    if not path.name.startswith("sa_") or path.suffix not in MAX_BYTES:
        return ProblemError("archive_member", f"{member.name}: neither image nor annotation")
    if member.size > MAX_BYTES[path.suffix]:
        return ProblemError("archive_member", f"{member.name}: {member.size} bytes")
    return None


def member_bytes(archive: Path, member: tarfile.TarInfo | None, rule: str) -> bytes:
    """Contents of a listed member. Raises ProblemError(rule) where they are not there (any more)."""
    if member is None:
        raise ProblemError(rule, "not in the archive")
    try:
        with archive.open("rb") as file:
            file.seek(member.offset_data)
            data = file.read(member.size)
    except OSError as error:
        raise ProblemError(rule, f"{member.name}: {error.strerror or error}") from None
    if len(data) != member.size:
        raise ProblemError(rule, f"{member.name}: {len(data)} of {member.size} bytes")
    return data
