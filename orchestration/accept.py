"""`alto accept`: a recorded result stays valid although code or parameters changed, and somebody says why."""

import json
from datetime import UTC, datetime
from pathlib import Path

from data_contracts.errors import InputError
from jobs.runner.layout import StageAddress
from jobs.runner.ledger import Ledger, Recorded
from jobs.runner.tracking import git_commit

HISTORY = Path("infra/accepted.jsonl")


def accept_change(root: Path, address: StageAddress, reason: str) -> Recorded:
    """Re-record the entry with the inputs as they are now, and append the reason to the tracked history.

    Raises InputError where the reason is empty, or where the output itself is not what the ledger records.
    """
    if not reason.strip():
        raise InputError("--reason is empty: say why the change cannot matter")
    recorded, changes = Ledger(root).accept(address)
    line = {
        "stage": str(address),
        "reason": reason,
        "changes": changes,
        "data_version": recorded.data_version,
        "commit": git_commit(root),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with (root / HISTORY).open("a") as file:
        file.write(json.dumps(line) + "\n")
    return recorded
