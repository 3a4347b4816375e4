"""The publisher's link list: shards looked up by name, and nothing of a link in any message."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import InputError
from jobs.acquisition.link_list import Link, listed, read_links

SECRET = "oh=planted-signature"
OTHERS = ("sa_images_ids.txt\thttps://cdn.example/ids", "sa_co_gold.tar\tnot a link at all")


def row(name: str, *more: str) -> str:
    return "\t".join((name, f"https://cdn.example/{name}?{SECRET}", *more))


def write(path: Path, *rows: str, header: str = "file_name\tcdn_link") -> Path:
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def reads(path: Path, *shards: str) -> list[Link]:
    return read_links(path, shards)


def test_shards_are_found_in_any_order_among_other_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "links.tsv", OTHERS[0], *(row(f"sa_00000{n}.tar") for n in (7, 2, 5)), OTHERS[1])
    found = reads(path, "sa_000005.tar", "sa_000007.tar")
    assert [link.name for link in found] == ["sa_000005.tar", "sa_000007.tar"]
    assert found[0].url.get_secret_value() == f"https://cdn.example/sa_000005.tar?{SECRET}"
    assert (found[0].size, found[0].md5) == (None, None)


@settings(max_examples=30, deadline=None)
@given(st.permutations([*range(12)]), st.sets(st.integers(0, 11), min_size=1))
def test_order_of_the_list_never_matters(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], wanted: set[int]
) -> None:
    path = write(tmp_path_factory.mktemp("list") / "links.tsv", *(row(f"sa_{n:06}.tar") for n in order))
    shards = [f"sa_{n:06}.tar" for n in sorted(wanted)]
    assert [link.name for link in read_links(path, shards)] == shards


def test_sizes_and_checksums_are_read_where_they_are_published(tmp_path: Path) -> None:
    path = write(
        tmp_path / "links.tsv",
        row("sa_000000.tar", "A" * 32, "12"),
        row("sa_000001.tar"),
        header="file_name\tcdn_link\tmd5\tsize",
    )
    first, second = reads(path, "sa_000000.tar", "sa_000001.tar")
    assert (first.size, first.md5) == (12, "a" * 32)
    assert (second.size, second.md5) == (None, None)


def test_list_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "links.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + f"file_name\tcdn_link\r\n{row('sa_000000.tar')}\r\n".encode())
    assert reads(path, "sa_000000.tar")[0].url.get_secret_value().endswith(SECRET)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"sa_000000.tar\thttps://cdn.example/x?{SECRET}\n", "column `cdn_link`, `file_name` is missing"),
        ("", "column `cdn_link`, `file_name` is missing"),
        ("file_name\tcdn_link\n", "no link for `sa_000000.tar`"),
        (f"file_name\tcdn_link\nsa_000000.tar\tftp://host/x?{SECRET}\n", r"line 2 .*no http\(s\) address"),
        (f"file_name\tcdn_link\nsa_000000.tar\thttps://[x?{SECRET}\n", r"line 2 .*no http\(s\) address"),
        ("file_name\tcdn_link\nsa_000000.tar\n", r"line 2 .*no http\(s\) address"),
        (
            f"file_name\tcdn_link\n{row('sa_000000.tar')}\n{row('sa_000000.tar')}2\n",
            "line 3 gives .* another",
        ),
        (f"file_name\tcdn_link\tsize\n{row('sa_000000.tar', '-3')}\n", "line 2 .*size is not"),
        (f"file_name\tcdn_link\tmd5\n{row('sa_000000.tar', 'abc')}\n", "line 2 .*md5 is not"),
        (f"file_name\tcdn_link\n{row('sa_000000.tar')}\xff\n".encode("latin-1"), "cannot be read: it is not"),
        (b"file_name\tcdn_link\n" + b"x" * 200_000, "cannot be read: it is not"),
    ],
)
def test_wrong_list_is_one_line_without_links(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "links.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=message) as caught:
        reads(path, "sa_000000.tar")
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_absent_list_says_where_to_correct_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`.*absent\.tsv` cannot be read: No such file.*params\.yaml"):
        reads(tmp_path / "absent.tsv", "sa_000000.tar")


def test_many_missing_shards_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "links.tsv", row("sa_000000.tar"))
    with pytest.raises(InputError, match=r"`sa_000001\.tar`, .* and 4 more"):
        read_links(path, [f"sa_{n:06}.tar" for n in range(10)])
    assert listed(["a", "b"]) == "`a`, `b`"


def test_link_does_not_show_its_address(tmp_path: Path) -> None:
    (link,) = reads(write(tmp_path / "links.tsv", row("sa_000000.tar")), "sa_000000.tar")
    assert SECRET not in f"{link} {link!r} {link.url}"
