"""Unpacks downloaded archives without trusting them: regular files only, inside one folder, of bounded size.

Members are written by this module, never by the archive library, so that neither a link nor a path of the archive
decides where bytes go.
"""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Self

from tqdm import tqdm

from data_contracts.errors import InputError
from jobs.acquisition.safe_names import UnsafeName, relative_path, shown

COPY_BYTES = 1 << 20
PADDING_BYTES = 16 << 20
FOLDER = "a folder"
# Text of annotations packs ten to twenty times; what packs much better than that holds nothing.
MAX_RATIO = 100
RATIO_SLACK = 100 << 20  # bytes below which the ratio does not matter
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    UnicodeDecodeError,
    NotImplementedError,
    ValueError,
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of all members of one archive together."""

    bytes: int
    files: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which members are taken, and where they go.

    only: patterns of their names. strip_folders: folders left out at the front. wanted: says of the remaining path
    whether the data set has a use for it.
    """

    only: tuple[str, ...]
    strip_folders: int
    wanted: Callable[[PurePosixPath], bool]

    def path(self, member: PurePosixPath) -> PurePosixPath | None:
        """Where the member goes, None where it is left out."""
        rest = member.parts[self.strip_folders :]
        taken = rest and any(fnmatchcase(str(member), pattern) for pattern in self.only)
        return path if taken and self.wanted(path := PurePosixPath(*rest)) else None


@dataclass(frozen=True, kw_only=True)
class _Member:
    """size: bytes as declared. kind: what it is unless a regular file. open: its content."""

    name: str
    size: int
    kind: str | None
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, target: Path, choice: Choice, limits: Limits, bar: tqdm) -> int:
    """Write the chosen members below `target`; returns how many.

    Every member is looked at, also those not chosen. Raises InputError naming archive and member where one is not a
    regular file or folder, leads out, comes twice, is damaged, or where the whole is larger than the limits.
    """
    budget = _Budget(archive, limits)
    written = 0
    with _members(archive) as members:
        for member in members:
            where = f"archive `{archive.name}`, member {shown(member.name)}"
            if member.kind == FOLDER and not PurePosixPath(member.name).parts:
                continue
            try:
                path = relative_path(member.name)
            except UnsafeName as error:
                raise InputError(f"{where}: {error}; nothing of it is used") from None
            if member.kind == FOLDER:
                continue
            if member.kind is not None:
                raise InputError(
                    f"{where}: {member.kind}, where a regular file is expected; nothing of it is used"
                )
            budget.declare(member.size, where)
            place = choice.path(path)
            if place is not None:
                with _damage_named(where):
                    _write(member, target / place, budget, where)
                written += 1
                bar.update(1)
    return written


class _Budget:
    """What an archive may still unpack."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        by_ratio = MAX_RATIO * archive.stat().st_size + RATIO_SLACK
        self._limits = limits
        self._most = min(limits.bytes, by_ratio)
        self._reason = (
            f"{MAX_RATIO} times its own size" if by_ratio < limits.bytes else "`max_unpacked_gigabytes`"
        )
        self._files = self._declared = self._written = 0

    def declare(self, size: int, where: str) -> None:
        """Count a member by what it says of itself. Raises InputError over a limit."""
        self._files += 1
        self._declared += size
        if self._files > self._limits.files:
            raise InputError(f"{where}: more members than `max_unpacked_files` ({self._limits.files})")
        self._refuse_over(self._declared, where)

    def write(self, count: int, where: str) -> None:
        """Count bytes that were really there."""
        self._written += count
        self._refuse_over(self._written, where)

    def _refuse_over(self, size: int, where: str) -> None:
        if size > self._most:
            raise InputError(f"{where}: the archive unpacks to more than {self._reason} ({self._most} bytes)")


def _write(member: _Member, path: Path, budget: _Budget, where: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise InputError(f"{where}: the path is taken by another file; change `unpack` or `only`") from None
    size = 0
    with file, member.open() as content:
        while data := content.read(COPY_BYTES):
            budget.write(len(data), where)
            file.write(data)
            size += len(data)
    if size != member.size:
        raise InputError(f"{where}: damaged ({size} bytes, {member.size} expected)")


@contextmanager
def _damage_named(where: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise InputError(f"{where}: damaged ({type(error).__name__})") from None
    except OSError as error:
        # Without a number it does not come from the system: bz2 and gzip say so that their stream is damaged.
        if error.errno is not None:
            raise
        raise InputError(f"{where}: damaged ({type(error).__name__})") from None


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    """Members in the order of the archive, whose kind its content tells."""
    where = f"archive `{archive.name}`"
    with ExitStack() as stack:
        if zipfile.is_zipfile(archive):
            with _damage_named(where):
                members = _of_zip(stack.enter_context(zipfile.ZipFile(archive)))
        else:
            try:
                tar = stack.enter_context(tarfile.open(archive, "r:*", tarinfo=_StrictHeader))
            except (*_DAMAGE, OSError):
                raise InputError(f"{where}: neither a .zip nor a .tar, or damaged at its start") from None
            members = _of_tar(tar, where)
        yield members


class _StrictHeader(tarfile.TarInfo):
    """tarfile takes a damaged or missing header for the end of the archive; here only its end mark is that."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _of_zip(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        yield _Member(
            name=info.orig_filename,
            size=info.file_size,
            kind=_kind_in_zip(info),
            open=partial(archive.open, info),
        )


def _kind_in_zip(info: zipfile.ZipInfo) -> str | None:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir():
        return FOLDER
    if mode == stat.S_IFLNK:
        return "a symbolic link"
    if mode not in (0, stat.S_IFREG):
        return "a special file"
    return "an encrypted file" if info.flag_bits & 1 else None


def _of_tar(archive: tarfile.TarFile, where: str) -> Iterator[_Member]:
    while True:
        with _damage_named(where):
            info = archive.next()
            if info is None:
                # What follows the end mark is padding; only behind it does a compressed stream tell its checksum.
                assert archive.fileobj is not None
                archive.fileobj.read(PADDING_BYTES)
                return
        archive.members.clear()  # type: ignore[attr-defined] # else it keeps all of them
        yield _Member(
            name=info.name, size=info.size, kind=_kind_in_tar(info), open=partial(_content, archive, info)
        )


def _kind_in_tar(info: tarfile.TarInfo) -> str | None:
    if info.isdir():
        return FOLDER
    if info.issym():
        return "a symbolic link"
    if info.islnk():
        return "a hard link"
    return None if info.isreg() else "a special file"


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(info)
    assert content is not None
    return content
