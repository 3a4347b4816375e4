"""What DVC's files say, in the work tree and in the commits that are kept."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from data_contracts.errors import InputError, first_line

Commits = Literal["all", "tips", "none"]
FILES = ("dvc.lock", "*.dvc")


def read_work_tree(root: Path) -> Iterator[str]:
    """Also of experiments that run in folders of their own."""
    paths = [root / "dvc.lock", *root.glob("*.dvc")]
    if (root / ".git").exists():
        listed = git(
            root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.dvc"
        ).decode()
        paths += [root / name for name in listed.split("\0") if name]
    experiments = root / ".dvc" / "tmp" / "exps"
    paths += [*experiments.glob("*/dvc.lock"), *experiments.glob("*/*/dvc.lock")]
    yield from (path.read_text() for path in paths if path.is_file())


def read_committed(root: Path, commits: Commits) -> Iterator[str]:
    """Each version once. `all`: of every commit that a branch, tag, experiment or stash leads to; `tips`: of the
    newest of each. Raises InputError outside git."""
    if commits == "none":
        return
    blobs = all_blobs(root) if commits == "all" else blobs_of_tips(root)
    if blobs:
        yield git(root, "cat-file", "--batch", given="\n".join(sorted(blobs))).decode(errors="replace")


def all_blobs(root: Path) -> set[str]:
    """Without `--full-history` git leaves out branches that were merged and whose version was not taken."""
    listed = git(root, "rev-list", "--objects", "--full-history", "--all", "--", *FILES).decode()
    objects = [line.split(" ", 1) for line in listed.splitlines()]
    return {one[0] for one in objects if len(one) == 2 and one[1].endswith((".dvc", "dvc.lock"))}


def blobs_of_tips(root: Path) -> set[str]:
    tips = git(root, "rev-list", "--no-walk", "--all").decode().split()
    listed = [git(root, "ls-tree", "-r", tip).decode() for tip in tips]
    lines = [line.split("\t") for text in listed for line in text.splitlines()]
    return {about.split()[2] for about, name in lines if name.endswith((".dvc", "dvc.lock"))}


def git(root: Path, *arguments: str, given: str = "") -> bytes:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], input=given.encode(), capture_output=True, check=False
    )
    if done.returncode:
        said = first_line(ValueError(done.stderr.decode(errors="replace").strip()))
        raise InputError(
            f"git {arguments[0]}: {said}; without git set dvc_cache.commits to none in infra/retention.yaml"
        )
    return done.stdout
