"""Damaged archives: what is wrong is named, everything else is read, nothing is believed."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.formats import shard_archive
from jobs.formats.raw import ProblemError
from jobs.formats.sa1b import open_sa1b
from jobs.formats.shard_archive import member_bytes, shard_members
from tests.jobs.raw_data import add_member, annotation, jpeg, sa1b_json

NAMES = [f"sa_{number}{suffix}" for number in range(3) for suffix in (".jpg", ".json")]
BLOCK = tarfile.BLOCKSIZE


def archive_bytes(names: list[str] = NAMES, **options: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as tar:  # type: ignore[call-overload]
        for name in names:
            add_member(tar, name, name.encode() * 100)
    return file.getvalue()


def listed(folder: Path, data: bytes) -> tuple[list[str], list[tuple[str, str]]]:
    """Names of the members whose bytes are right, and (rule, value) of the problems."""
    path = folder / "sa_000000.tar"
    path.write_bytes(data)
    names, problems = [], []
    for item in shard_members(path):
        try:
            if isinstance(item, ProblemError):
                raise item
            assert member_bytes(path, item, "image_exists") == item.name.encode() * 100
            names.append(item.name)
        except ProblemError as error:
            problems.append((error.problem.rule, error.problem.value))
    return names, problems


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_right_archive_is_read_whole(tmp_path: Path, format_: int) -> None:
    long_name = f"{'folder/' * 30}sa_9.jpg" if format_ != tarfile.USTAR_FORMAT else "folder/sa_9.jpg"
    assert listed(tmp_path, archive_bytes([*NAMES, long_name], format=format_)) == ([*NAMES, long_name], [])


def test_a_header_of_the_whole_archive_is_no_damage(tmp_path: Path) -> None:
    data = archive_bytes(format=tarfile.PAX_FORMAT, pax_headers={"comment": "made by git archive"})
    assert listed(tmp_path, data) == (NAMES, [])


@pytest.mark.parametrize("garbage", [b"x" * 100, b"x" * BLOCK, b"\x00" * BLOCK + b"garbage" * 1000])
def test_what_follows_garbage_is_read(tmp_path: Path, garbage: bytes) -> None:
    data, first = archive_bytes(), len(archive_bytes(NAMES[:2])) // BLOCK
    place = next(p for p in range(0, first * BLOCK, BLOCK) if data[p:].startswith(b"sa_1.jpg"))
    padded = garbage + b"\x00" * (-len(garbage) % BLOCK)
    names, problems = listed(tmp_path, data[:place] + padded + data[place:])
    assert names == NAMES
    assert [rule for rule, _ in problems] == ["archive_readable"]
    assert (
        f"damaged from byte {place + padded.index(garbage.strip(bytes(1))) // BLOCK * BLOCK}"
        in problems[0][1]
    )


def test_a_broken_header_loses_one_member(tmp_path: Path) -> None:
    data = bytearray(archive_bytes())
    place = data.index(b"sa_1.jpg")
    data[place + 148 : place + 156] = b"77777777"  # its checksum
    names, problems = listed(tmp_path, bytes(data))
    assert names == [name for name in NAMES if name != "sa_1.jpg"]
    assert [rule for rule, _ in problems] == ["archive_readable"]


@pytest.mark.parametrize("data", [b"", b"GIF89a" * 1000, b"\x1f\x8b\x08" + b"z" * 2000])
def test_what_is_no_archive_is_one_problem(tmp_path: Path, data: bytes) -> None:
    names, problems = listed(tmp_path, data)
    assert names == []
    assert [rule for rule, _ in problems] == ["archive_readable"]


def test_two_archives_in_one_file_are_both_read(tmp_path: Path) -> None:
    assert listed(tmp_path, archive_bytes(NAMES[:2]) + archive_bytes(NAMES[2:])) == (NAMES, [])


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(archive_bytes()) - 1))
def test_a_cut_archive_says_so_and_keeps_what_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    data = archive_bytes()
    names, problems = listed(tmp_path_factory.mktemp("cut"), data[:cut])
    whole = [name for name in NAMES if data.index(name.encode()) + BLOCK + 100 * len(name) <= cut]
    end_of_members = data.rindex(b"sa_2.json") // BLOCK * BLOCK + BLOCK
    if cut >= end_of_members + BLOCK:  # a zero block follows the last member: padding may be missing
        assert names == NAMES
    else:
        assert names == whole
        assert "archive_readable" in [rule for rule, _ in problems]


@settings(max_examples=150, deadline=None)
@given(
    damage=st.lists(st.tuples(st.integers(0, len(archive_bytes()) - 1), st.binary(min_size=1, max_size=600)))
)
def test_any_damage_is_survived(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, bytes]]
) -> None:
    data = bytearray(archive_bytes())
    for place, garbage in damage:
        data[place : place + len(garbage)] = garbage
    folder = tmp_path_factory.mktemp("damage")
    path = folder / "sa_000000.tar"
    path.write_bytes(data)
    items = list(shard_members(path))
    assert len(items) < 100
    images = list(open_sa1b(folder).images)
    assert all(image.problem is not None for image in images)
    assert [one.name for one in folder.iterdir()] == [path.name]


def test_bombs_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sa_000000.tar"
    with tarfile.open(path, "w") as tar:
        add_member(tar, "sa_1.json", b" " * 2000)
        for name, type_ in (("sa_2.jpg", tarfile.GNUTYPE_SPARSE), ("sa_3.jpg", tarfile.FIFOTYPE)):
            add_member(tar, name, b"", type=type_)
        add_member(tar, "sa_4.jpg", jpeg())
    monkeypatch.setitem(shard_archive.MAX_BYTES, ".json", 1999)
    problems = [item.problem for item in shard_members(path) if isinstance(item, ProblemError)]
    assert [(problem.rule, problem.value.split(":")[0]) for problem in problems] == [
        ("archive_member", "sa_1.json"),
        ("archive_member", "sa_2.jpg"),
        ("archive_member", "sa_3.jpg"),
    ]


def test_a_negative_size_ends_reading(tmp_path: Path) -> None:
    header = tarfile.TarInfo("sa_1.jpg")
    header.size = -(10**6)
    path = tmp_path / "sa_000000.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + archive_bytes())
    (problem,) = [item for item in shard_members(path) if isinstance(item, ProblemError)]
    assert problem.problem.rule == "archive_readable"


@pytest.mark.parametrize("moment", ["listing", "reading"])
def test_archives_and_files_that_vanish_are_named(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "sa_000000.tar"
    with tarfile.open(path, "w") as tar:
        for number in (1, 2):
            add_member(tar, f"sa_{number}.jpg", jpeg())
            add_member(tar, f"sa_{number}.json", sa1b_json(number, [annotation(1)]))
    (tmp_path / "sa_7.jpg").write_bytes(jpeg())
    (tmp_path / "sa_7.json").write_bytes(sa1b_json(7, [annotation(1), annotation(2)]))
    images = open_sa1b(tmp_path).images
    if moment == "listing":
        path.unlink()
        (tmp_path / "sa_7.jpg").unlink()
        rules = [(len(image.rows), image.problem and image.problem.rule) for image in images]
        assert rules == [(2, "image_exists"), (1, "archive_readable")]
    else:
        assert [next(images).problem, next(images).problem] == [None, None]
        path.unlink()
        (gone,) = images
        assert gone.problem is not None
        assert gone.problem.rule == "annotations_readable"
        assert "No such file" in gone.problem.value
