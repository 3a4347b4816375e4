"""Run command blocks of the documentation as they are written: `python -m tests.docs.run_blocks slow [PAGE…]`."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.docs.command_blocks import ROOT, CommandBlock, all_blocks, edits
from tests.lineage.project import copy_repository, environment


def new_project(folder: Path, profile: str) -> Path:
    """A copy of this repository that uses this virtual environment, which its `make` takes for complete."""
    project = copy_repository(folder, profile)
    venv = project / ".venv"
    venv.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != "installed":
            (venv / path.name).symlink_to(path)
    (venv / "installed").touch()
    return project


def merged(value: Any, added: Any) -> Any:
    """Sections merged, lists prolonged by what they lack."""
    match value, added:
        case dict(), dict():
            return value | {key: merged(value.get(key), one) for key, one in added.items()}
        case list(), list():
            return value + [one for one in added if one not in value]
    return added


def make_edits(block: CommandBlock, project: Path) -> None:
    """What the page tells the reader to edit before the block."""
    for edit in edits(ROOT / block.page):
        if edit.line < block.line:
            path = project / edit.file
            value = merged(yaml.safe_load(path.read_text()), yaml.safe_load(edit.content))
            path.write_text(yaml.safe_dump(value, sort_keys=False))


def run_block(block: CommandBlock, project: Path) -> None:
    """Raises AssertionError with what was printed where a command of the block fails."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.script],
        cwd=project,
        env=environment(project),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.docs.run_blocks", description=__doc__)
    parser.add_argument("tag", choices=["fast", "slow"])
    parser.add_argument("pages", nargs="*", help="such as README.md; all where none is named")
    arguments = parser.parse_args()
    blocks = [block for block in all_blocks() if block.tags == (arguments.tag,)]
    if shutil.which("nvidia-smi") is None:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for who in ("AUTHOR", "COMMITTER"):  # some blocks commit
        os.environ.setdefault(f"GIT_{who}_NAME", "Release check")
        os.environ.setdefault(f"GIT_{who}_EMAIL", "check@example.org")
    with tempfile.TemporaryDirectory() as folder:
        project = new_project(Path(folder), "small")
        for block in blocks:
            if not arguments.pages or block.page in arguments.pages:
                print(f"{block}\n{block.script}", flush=True)
                make_edits(block, project)
                run_block(block, project)
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
