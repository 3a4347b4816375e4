"""An archive is unpacked exactly, or refused in one line that names it and the member; nothing goes elsewhere."""

import bz2
import gzip
import io
import lzma
import random
import stat
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from data_contracts.errors import InputError
from jobs.acquisition.archives import Choice, Limits, unpack

FILES = {
    "set/instances.json": b'{"images": []}' * 40,
    "set/images/1.jpg": random.Random(1).randbytes(5000),
    "set/images/2.jpg": b"",
    "set/refs(unc).p": random.Random(2).randbytes(300),
}
ALL = Choice(only=("*",), strip_folders=0, wanted=lambda path: True)


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("set/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in (".", "set"):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


WRITERS = {
    ".zip": zip_of,
    "stored.zip": lambda files: zip_of(files, zipfile.ZIP_STORED),
    ".tar": tar_of,
    ".tar.gz": lambda files: gzip.compress(tar_of(files), mtime=0),
    ".tar.bz2": lambda files: bz2.compress(tar_of(files)),
    ".tar.xz": lambda files: lzma.compress(tar_of(files)),
}


def unpacked(
    folder: Path,
    content: bytes,
    choice: Choice = ALL,
    most_bytes: int = 1 << 40,
    most_files: int = 1000,
) -> dict[str, bytes]:
    """What lies in the target afterwards; fails where anything lies elsewhere."""
    (folder / "set.bin").write_bytes(content)
    limits = Limits(bytes=most_bytes, files=most_files)
    try:
        with tqdm(disable=True) as bar:
            written = unpack(folder / "set.bin", folder / "target", choice, limits, bar)
    except InputError as error:
        if "\n" in str(error) or not str(error).startswith("archive `set.bin`"):
            raise AssertionError("not one line that names the archive") from error
        raise
    finally:
        assert {path.name for path in folder.iterdir()} <= {"set.bin", "target"}
        assert not any(path.is_symlink() for path in folder.rglob("*"))
    found = [path for path in (folder / "target").rglob("*") if path.is_file()]
    assert len(found) == written
    return {str(path.relative_to(folder / "target")): path.read_bytes() for path in found}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_keeps_every_byte(tmp_path: Path, kind: str) -> None:
    assert unpacked(tmp_path, WRITERS[kind](FILES)) == FILES


@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
def test_members_are_chosen_and_folders_left_out(tmp_path: Path, kind: str) -> None:
    choice = Choice(
        only=("set/refs(unc).p", "*/images/*"),
        strip_folders=1,
        wanted=lambda path: path != PurePosixPath("images/2.jpg"),
    )
    found = unpacked(tmp_path, WRITERS[kind](FILES), choice)
    assert set(found) == {"refs(unc).p", "images/1.jpg"}


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=20, deadline=None)
@given(share=st.floats(0, 0.999))
def test_cut_archives_are_refused(tmp_path_factory: pytest.TempPathFactory, kind: str, share: float) -> None:
    whole = WRITERS[kind](FILES)
    # A tar ends with two empty blocks, then with empty blocks up to a round number: these carry nothing.
    end = len(whole)
    if kind == ".tar":
        end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    with pytest.raises(InputError):
        unpacked(tmp_path_factory.mktemp("cut"), whole[: int(end * share)])


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_changed_bytes_never_crash(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    content = bytearray(WRITERS[kind](FILES))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] ^= data.draw(st.integers(1, 255))
    with suppress(InputError):
        unpacked(tmp_path_factory.mktemp("changed"), bytes(content))


def test_damage_names_the_member(tmp_path: Path) -> None:
    content = bytearray(zip_of(FILES, zipfile.ZIP_STORED))
    content[content.index(FILES["set/images/1.jpg"]) + 9] ^= 1
    with pytest.raises(InputError, match=r"member `set/images/1\.jpg`: damaged"):
        unpacked(tmp_path, bytes(content))


def link(name: str, kind: bytes, to: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (link("set/x.jpg", tarfile.SYMTYPE, "/etc/passwd"), "`set/x.jpg`: a symbolic link"),
        (link("set/x.jpg", tarfile.LNKTYPE, "set/instances.json"), "`set/x.jpg`: a hard link"),
        (link("set/x.jpg", tarfile.FIFOTYPE, ""), "`set/x.jpg`: a special file"),
        (link("set/x.jpg", tarfile.CHRTYPE, ""), "`set/x.jpg`: a special file"),
    ],
)
def test_what_is_no_regular_file_is_refused(tmp_path: Path, info: tarfile.TarInfo, message: str) -> None:
    with pytest.raises(InputError, match=message):
        unpacked(tmp_path, tar_of(FILES, info))


def test_links_and_locked_members_of_a_zip_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("x.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match=r"`x\.jpg`: a symbolic link"):
        unpacked(tmp_path, buffer.getvalue())
    locked = bytearray(zip_of({"x.jpg": b"1"}))
    locked[locked.index(b"PK\1\2", locked.index(b"PK\1\2") + 1) + 8] |= 1
    with pytest.raises(InputError, match=r"`x\.jpg`: an encrypted file"):
        unpacked(tmp_path, bytes(locked))


@pytest.mark.parametrize("kind", [".zip", ".tar"])
@pytest.mark.parametrize(
    "name",
    [
        "../x.jpg",
        "set/../../x.jpg",
        "/x.jpg",
        "C:\\x.jpg",
        "set\\..\\..\\x.jpg",
        "a\nb.jpg",
        "a" * 300 + ".jpg",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(InputError, match=r"archive `set\.bin`, member `.*`: a(n absolute)? path"):
        unpacked(tmp_path, WRITERS[kind]({name: b"1"}))


def test_backslashes_separate_folders(tmp_path: Path) -> None:
    assert unpacked(tmp_path, zip_of({"set\\images\\1.jpg": b"1"})) == {"set/images/1.jpg": b"1"}


def test_a_member_that_comes_twice_is_refused(tmp_path: Path) -> None:
    twice = tarfile.TarInfo("set/instances.json")
    with pytest.raises(InputError, match=r"`set/instances\.json`: the path is taken"):
        unpacked(tmp_path, tar_of(FILES, twice))


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`a/b`: the path is taken"):
        unpacked(tmp_path, tar_of({"a": b"1", "a/b": b"2"}))


@pytest.mark.parametrize("kind", WRITERS)
def test_limits_hold(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    content = WRITERS[kind](FILES)
    total = sum(map(len, FILES.values()))
    with pytest.raises(InputError, match=r"more than `max_unpacked_gigabytes`"):
        unpacked(tmp_path, content, most_bytes=total - 1)
    with pytest.raises(InputError, match=r"more members than `max_unpacked_files` \(3\)"):
        unpacked(tmp_path_factory.mktemp("many"), content, most_files=3)


@pytest.mark.parametrize("kind", [".zip", ".tar.gz", ".tar.xz"])
def test_bombs_are_refused_before_they_unfold(tmp_path: Path, kind: str) -> None:
    bomb = WRITERS[kind]({"set/zeros.json": bytes(150 << 20)})
    with pytest.raises(InputError, match=r"`set/zeros\.json`: the archive unpacks to more than 100 times"):
        unpacked(tmp_path, bomb)
    assert not list(tmp_path.glob("target/**/*.json"))


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_of({"x.json": b"0" * 100_000}))
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        place = content.index(mark, content.index(mark) + 1) + offset
        content[place : place + 4] = (10).to_bytes(4, "little")
    with pytest.raises(InputError, match=r"`x\.json`: damaged"):
        unpacked(tmp_path, bytes(content), most_bytes=1000)


@pytest.mark.parametrize(
    "content", [b"", b"hello", bytes(10_240), b"PK\3\4", gzip.compress(b"hello", mtime=0)]
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    if content == bytes(10_240):
        assert unpacked(tmp_path, content) == {}
        return
    with pytest.raises(InputError, match=r"archive `set\.bin`: neither"):
        unpacked(tmp_path, content)
