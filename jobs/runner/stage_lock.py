"""One run of a stage at a time, on one file system, whichever door it came through."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from jobs.runner.layout import StageAddress


class StageLock:
    """Advisory file lock of one address, or of a stage that only Dagster has.

    The kernel releases it when every process holding it has died.

    A launched job inherits the descriptor (`fileno`), so a job that outlives its launcher still holds it.
    """

    def __init__(self, root: Path, address: StageAddress | str) -> None:
        folder = root / ".work" / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        self.address = address
        self._descriptor = os.open(folder / f"{address}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def acquire(self) -> None:
        """Wait for the lock; say so once if another run has it."""
        if not self.acquire_now():
            print(f"{self.address}: waiting for another run of this stage", file=sys.stderr, flush=True)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def acquire_now(self) -> bool:
        """Whether nobody else has it; then it is taken."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def fileno(self) -> int:
        return self._descriptor

    def __enter__(self) -> "StageLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def free_stage(root: Path, address: StageAddress | str) -> Iterator[bool]:
    """Whether no run of it goes on; then none begins before this is left."""
    with closing(StageLock(root, address)) as lock:
        yield lock.acquire_now()
