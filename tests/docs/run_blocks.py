"""Run command blocks of the documentation as they are written: `python -m tests.docs.run_blocks slow [PAGE…]`."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.docs.command_blocks import ROOT, CommandBlock, all_blocks
from tests.lineage.project import copy_repository, environment


def new_project(folder: Path, profile: str) -> Path:
    """A copy of this repository that uses this virtual environment."""
    project = copy_repository(folder, profile)
    if not (project / ".venv").exists():
        (project / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    return project


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
    with tempfile.TemporaryDirectory() as folder:
        project = new_project(Path(folder), "small")
        for block in blocks:
            if not arguments.pages or block.page in arguments.pages:
                print(f"{block}\n{block.script}", flush=True)
                run_block(block, project)
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
