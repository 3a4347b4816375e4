"""The command blocks of README and documentation: fenced `bash` blocks, each with a tag behind the language.

fast: run as written by the tests, in a project whose lineage has run. slow: minutes to hours; run before a release, by
`python -m tests.docs.run_blocks slow`. cluster: needs a cluster or the services of a deployment. interactive: does not
end by itself, or needs what only the reader has. What the last two call is checked to exist.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.runner.layout import project_root

ROOT = project_root()
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TAGS = ("fast", "slow", "cluster", "interactive")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
EDITED = ("params.yaml", "partitions.yaml")
LANGUAGES_OF_COMMANDS = ("bash", "sh", "shell", "console", "")


@dataclass(frozen=True)
class CommandBlock:
    """line: of the page, counted from 1. tags: what stands behind the language."""

    page: str
    line: int
    tags: tuple[str, ...]
    script: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its lines without comments, continued ones joined."""
        joined = self.script.replace("\\\n", " ")
        return [line for line in map(str.strip, joined.splitlines()) if line and not line.startswith("#")]


@dataclass(frozen=True)
class Edit:
    """A `yaml` block with a file's name behind the language: what a reader adds to that file by hand."""

    line: int
    file: str
    content: str


def edits(page: Path) -> Iterator[Edit]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        match found["info"].split():
            case ["yaml", file] if file in EDITED:
                yield Edit(text.count("\n", 0, found.start()) + 1, file, found["body"])


def command_blocks(page: Path) -> list[CommandBlock]:
    text = page.read_text(encoding="utf-8")
    blocks = []
    for found in FENCE.finditer(text):
        language, *tags = found["info"].split() or [""]
        if language in LANGUAGES_OF_COMMANDS:
            line = text.count("\n", 0, found.start()) + 1
            body = re.sub(f"^{found['indent']}", "", found["body"], flags=re.MULTILINE)
            blocks.append(CommandBlock(page.relative_to(ROOT).as_posix(), line, tuple(tags), body))
    return blocks


def all_blocks() -> list[CommandBlock]:
    return [block for page in PAGES for block in command_blocks(page)]
