"""The commit that a job runs at: what must hold where it is submitted, and the clone on the node."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml

from data_contracts.errors import InputError, first_line
from jobs.runner.exchange import SECONDS_UNREACHABLE, Exchange, until_reachable
from jobs.runner.staged_order import StagedOrder

LEDGER = "dvc.lock"
NAMED_AT_MOST = 5
# A node has one copy of the data, not one in the cache and one in the clone.
CLONE_CONFIG = '[cache]\n    type = "reflink,hardlink,symlink,copy"\n'


def bundle_name(commit: str) -> str:
    return f"code/{commit}.bundle"


def committed(root: Path) -> str:
    """Hash of the commit that the work tree equals. Raises InputError naming what is not committed.

    The ledger may differ: recording changes it all the time, and the entries that a job needs travel with its order.
    """
    lines = git(root, "status", "--porcelain", "--untracked-files=all", "-z").split("\0")
    names = [line[3:] for line in lines if len(line) > 3]
    changed = [name for name in names if name != LEDGER]
    if changed:
        more = f" and {len(changed) - NAMED_AT_MOST} more" if len(changed) > NAMED_AT_MOST else ""
        raise InputError(
            f"not committed: {', '.join(changed[:NAMED_AT_MOST])}{more}; a job without a shared work tree runs at a"
            " commit: commit them, or have git ignore them"
        )
    return git(root, "rev-parse", "HEAD").strip()


def offer_bundle(root: Path, commit: str, exchange: Exchange, scratch: Path) -> None:
    """Put the commit with its history into the exchange, unless it is there."""
    name = bundle_name(commit)
    if name in exchange.names("code"):
        return
    path = scratch / "code.bundle"
    git(root, "bundle", "create", "--quiet", str(path), "HEAD")
    exchange.upload(path, name)
    path.unlink()


def clone(order: StagedOrder, exchange: Exchange, root: Path) -> None:
    """Make a work tree of the order's commit at `root`, with the ledger entries it came with. Raises InputError,
    or Unreachable where the exchange stays away."""
    source = order.repository
    if source is None:
        bundle = root.with_name("code.bundle")
        until_reachable(SECONDS_UNREACHABLE, lambda: exchange.download(bundle_name(order.commit), bundle))
        source = str(bundle)
    git(root.parent, "clone", "--quiet", "--no-checkout", "--", source, str(root))
    git(root, "checkout", "--quiet", "--detach", order.commit)
    write_ledger(root, order.ledger)
    (root / ".dvc" / "config.local").write_text(CLONE_CONFIG)


def write_ledger(root: Path, entries: Mapping[str, Any]) -> None:
    path = root / LEDGER
    if path.exists():  # the commit holds another one; what runs is the commit all the same
        git(root, "update-index", "--assume-unchanged", LEDGER)
    path.write_text(dumps_yaml({"schema": "2.0", "stages": dict(entries)}))


def git(folder: Path, *arguments: str) -> str:
    """Output of a git command. Raises InputError with git's own line where it fails."""
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise InputError(f"git {arguments[0]}: {first_line(ValueError(result.stderr.strip()))}")
    return result.stdout
