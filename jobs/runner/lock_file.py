"""One entry of `dvc.lock` written without parsing and printing the others, as DVC prints it."""

import re
from collections.abc import Mapping
from typing import Any

from dvc.utils.serialize import dumps_yaml

SECTION = re.compile(r"^stages:\n", re.MULTILINE)
EMPTY_SECTION = re.compile(r"^stages: \{\}\n", re.MULTILINE)
NEXT_SECTION = re.compile(r"^\S", re.MULTILINE)


def with_entry(text: str, name: str, entry: Mapping[str, Any]) -> str:
    """The content of `dvc.lock` with this entry in place of the old one, or behind the last.

    Right for files in the layout that DVC writes; the caller compares what the result says with what it should.
    """
    printed = dumps_yaml({"stages": {name: dict(entry)}})
    text = EMPTY_SECTION.sub("stages:\n", text)
    section = SECTION.search(text)
    if section is None:
        return (text or "schema: '2.0'\n") + printed
    block = printed[printed.index("\n") + 1 :]
    following = NEXT_SECTION.search(text, section.end())
    end_of_section = following.start() if following else len(text)
    old = re.compile(rf"^  {re.escape(name)}:\n(?:    .*\n|\n)*", re.MULTILINE)
    found = old.search(text, section.end(), end_of_section)
    start, end = found.span() if found else (end_of_section, end_of_section)
    return text[:start] + block + text[end:]
