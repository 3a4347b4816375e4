"""`dvc.lock` read without parsing it again, and one entry of it written without printing the others."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml

from jobs.runner.whole_file import write_whole

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


class ParsedLock:
    """What `dvc.lock` says, kept as JSON under the hash of its text: with a thousand shards, parsing takes a second.

    Used under the repository lock only.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        """folder: that DVC keeps its temporary files in."""
        self._path = path
        self._kept = folder / "parsed_lock.json"

    def content(self, load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """load: reads and checks the file, where nothing was kept of what it is now."""
        text = self._text()
        try:
            kept = json.loads(self._kept.read_text(encoding="utf-8"))
            if kept["text"] == _digest(text):
                return kept["content"]
        except (FileNotFoundError, ValueError):  # none, or not written to its end
            pass
        content = load()
        if self._text() == text:  # git does not ask for DVC's lock
            self.keep(text, content)
        return content

    def _text(self) -> str:
        return self._path.read_text(encoding="utf-8") if self._path.exists() else ""

    def keep(self, text: str, content: Mapping[str, Any]) -> None:
        """Only what JSON can hold: keys that are numbers would come back as text, and dates not at all."""
        try:
            if json.loads(json.dumps(content)) == content:
                write_whole(self._kept, json.dumps({"text": _digest(text), "content": content}))
        except TypeError:
            return


def _digest(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
