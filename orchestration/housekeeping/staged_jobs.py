"""What jobs without a shared work tree leave in the exchange: orders, checkpoints, logs and commits."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_contracts.errors import InputError
from jobs.runner.exchange import Exchange, StoredObject, Unreachable, open_exchange
from jobs.runner.ledger import Ledger
from jobs.runner.stage_lock import StageLock
from jobs.runner.staged_clone import bundle_name
from jobs.runner.staged_order import JOBS, ORDER, RETURNED
from jobs.runner.work_mirror import STATE_INDEX
from orchestration.housekeeping.committed import git
from orchestration.housekeeping.part import LeftOut
from orchestration.housekeeping.rules import Found, Key, Rule
from orchestration.housekeeping.settings import Retention
from orchestration.housekeeping.work_folders import job_folders
from orchestration.launching.interface import LaunchFailed
from orchestration.launching.orphans import launchers_in_use
from orchestration.launching.staged import EXCHANGE_LOCK, read_settings

MAILBOX, COMMIT = "staged job", "staged commit"
CODE = "code"
REFER_TO_THE_REST = (ORDER, RETURNED, STATE_INDEX)


@dataclass
class StagedJobs:
    root: Path
    retention: Retention

    @property
    def rules(self) -> Mapping[str, Rule]:
        return dict.fromkeys((MAILBOX, COMMIT), Rule(days=self.retention.staged_jobs.days))

    def held(self) -> AbstractContextManager[StageLock]:
        """The lock under which orders are posted: one that is being posted keeps its commit."""
        return StageLock(self.root, EXCHANGE_LOCK)

    def find(self) -> list[Found]:
        if not is_staged(self.root):
            return []
        try:
            exchange = exchange_of(self.root)
            live = {handle.name for launcher in launchers_in_use(self.root) for handle in launcher.jobs()}
            here = {folder.name[:12] for folder, _ in job_folders(self.root)}
            mailboxes: dict[str, list[StoredObject]] = defaultdict(list)
            for stored in exchange.stored(JOBS):
                mailboxes[PurePosixPath(stored.name).parts[1]].append(stored)
            found = [_mailbox(exchange, name, content, live, here) for name, content in mailboxes.items()]
            head = bundle_name(git(self.root, "rev-parse", "HEAD").decode().strip())
            return found + [
                Found(
                    key=Key(COMMIT, stored.name),
                    changed=stored.changed,
                    bytes=stored.size,
                    needed="it is that of the work tree" if stored.name == head else "",
                )
                for stored in exchange.stored(CODE)
            ]
        except (InputError, Unreachable, LaunchFailed) as error:
            raise LeftOut(f"exchange: {error}") from None

    def remove(self, keys: Sequence[Key]) -> None:
        try:
            exchange = exchange_of(self.root)
            for key in keys:
                if key.kind == COMMIT:
                    exchange.delete([key.name])
                    continue
                mailbox = exchange.below(f"{JOBS}/{key.name}")
                names = mailbox.names()
                mailbox.delete(sorted(names, key=lambda name: name not in REFER_TO_THE_REST))
        except (InputError, Unreachable) as error:
            raise LeftOut(f"exchange: {error}") from None


def _mailbox(
    exchange: Exchange, name: str, content: Sequence[StoredObject], live: set[str], here: set[str]
) -> Found:
    order = exchange.read(f"{JOBS}/{name}/{ORDER}")
    commit = None if order is None else json.loads(order).get("commit")
    needed = "its work folder is here" if name.rpartition("-")[2] in here else ""
    return Found(
        key=Key(MAILBOX, name),
        changed=max(stored.changed for stored in content),
        bytes=sum(stored.size for stored in content),
        needed="its job runs" if name in live else needed,
        refers_to=frozenset({Key(COMMIT, bundle_name(commit))} if commit else ()),
    )


def is_staged(root: Path) -> bool:
    return Ledger(root).resources().work_tree == "staged"


def exchange_of(root: Path) -> Exchange:
    return open_exchange(read_settings(root).exchange)


def returned_entries(root: Path) -> Iterator[str]:
    """What jobs have pushed to the DVC remote, as the entries that they left say. Raises InputError."""
    yield from (file.read_text() for folder, _ in job_folders(root) for file in folder.glob(RETURNED))
    if not is_staged(root):
        return
    exchange = exchange_of(root)
    try:
        for name in exchange.names(JOBS):
            if name.endswith(f"/{RETURNED}"):
                yield (exchange.read(name) or b"").decode()
    except Unreachable as error:
        raise InputError(str(error)) from None
