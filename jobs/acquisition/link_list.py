"""The list of links by which SA-1B's publisher hands out the shards: tab-separated, in no order."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from pydantic import SecretStr

from data_contracts.errors import InputError

NAME, LINK, SIZE, MD5 = "file_name", "cdn_link", "size", "md5"
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Link:
    """url: carries a signature that lets anyone download, so it is kept out of every message.

    size: bytes. size, md5 and sha256 (lower-case hexadecimal) as published, None where that is not known.
    stated_in: where they stand. remedy: what to do about a link that leads nowhere.
    """

    name: str
    url: SecretStr
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    stated_in: str = "the link list"
    remedy: str = "get a fresh list from the publisher"


def read_links(path: Path, names: Sequence[str]) -> list[Link]:
    """Links of these files, in their order; rows of others are skipped unread.

    Raises InputError for a list that cannot be read, lacks one of the files or names one twice.
    """
    wanted = set(names)
    found: dict[str, Link] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in _rows(file, path.name):
                name = row[NAME].strip()
                if name not in wanted:
                    continue
                link = _link(name, row, f"{path.name}: line {number} (`{name}`)")
                if found.setdefault(name, link) != link:
                    raise InputError(f"{path.name}: line {number} gives `{name}` another link; remove one")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        # The error's own text may quote a line, and with it a link.
        reason = error.strerror if isinstance(error, OSError) else "it is not tab-separated UTF-8 text"
        raise InputError(
            f"link list `{path}` cannot be read: {reason}; correct its name in params.yaml"
        ) from None
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{path.name}: has no link for {listed(missing)}; get a complete list or correct the names"
        )
    return [found[name] for name in names]


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:_SHOWN]) + more


def _rows(file: TextIO, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, restval="", restkey="more")
    columns = [column.strip() for column in reader.fieldnames or ()]
    if absent := {NAME, LINK} - set(columns):
        raise InputError(
            f"{name}: column {listed(sorted(absent))} is missing; the first line names the columns"
        )
    reader.fieldnames = columns
    for row in reader:
        yield reader.line_num, row


def _link(name: str, row: dict[str, str], where: str) -> Link:
    url, size, md5 = (row.get(column, "").strip() for column in (LINK, SIZE, MD5))
    if not is_web_address(url):
        raise InputError(f"{where}: cdn_link is no http(s) address; get a fresh list from the publisher")
    if size and not size.isdecimal():
        raise InputError(f"{where}: size is not a number of bytes; correct it or leave it empty")
    if md5 and not (len(md5) == 32 and set(md5.lower()) <= set("0123456789abcdef")):
        raise InputError(f"{where}: md5 is not 32 hexadecimal digits; correct it or leave it empty")
    return Link(name=name, url=SecretStr(url), size=int(size) if size else None, md5=md5.lower() or None)


def is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
