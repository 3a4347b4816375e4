"""What a job leaves in its work folder on a node, passed on through an exchange while it runs.

`Outbox` on the node and `Inbox` where the job was submitted keep small files alike: growing ones in numbered pieces,
the others as they are at the end. `StateKeeper` keeps the checkpoints, for the node on which the job goes on.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from data_contracts.errors import InputError
from jobs.acquisition.safe_names import UnsafeName, relative_path, shown
from jobs.runner.exchange import Exchange

LOG = "job.log"
MESSAGES = "pipes_messages.jsonl"
CURVES = "state/metrics.jsonl"
GROWING = (LOG, MESSAGES, CURVES)
MLFLOW_OUTBOX = ("state/mlflow/entries.jsonl", "state/mlflow/sent.json")
AT_THE_END = (
    *MLFLOW_OUTBOX,
    "wrong_input.txt",
    "stopped.txt",
    "rejected/report.json",
    "state/environment.json",
    "state/speed.json",
)
FOLDERS_AT_THE_END = ("state/mlflow/artifacts/", "state/data_docs/")
BYTES_PER_PIECE = 4 << 20
STATE = "state"
STATE_INDEX = f"{STATE}/index.json"
# What a job downloads or unpacks it downloads again; and files still being written.
NOT_KEPT = frozenset({"downloads", "incomplete", "published", "shards", "data_docs"})
SCANS = 5


class Outbox:
    """The node's side."""

    def __init__(self, exchange: Exchange, work: Path) -> None:
        self._exchange, self._work = exchange, work
        # After a requeue, pieces of the attempts before are there; what was restored of a file has been sent by them.
        self._pieces = {name: len(exchange.names(f"pieces/{name}")) for name in GROWING}
        self._sent = {name: _size(work / name) if self._pieces[name] else 0 for name in GROWING}
        exchange.delete(exchange.names("files"))

    def send_growth(self) -> None:
        """Send what was added since the last call; of files with lines, whole lines only."""
        for name in GROWING:
            while piece := self._next_piece(name):
                self._exchange.write(piece_name(name, self._pieces[name]), piece)
                self._pieces[name] += 1
                self._sent[name] += len(piece)

    def send_the_rest(self) -> None:
        """Small files that are complete when a job is."""
        names = [name for name in AT_THE_END if (self._work / name).is_file()]
        for folder in FOLDERS_AT_THE_END:
            files = sorted(path for path in (self._work / folder).rglob("*") if path.is_file())
            names += [path.relative_to(self._work).as_posix() for path in files]
        for name in names:
            self._exchange.upload(self._work / name, f"files/{name}")

    def _next_piece(self, name: str) -> bytes:
        path = self._work / name
        if _size(path) <= self._sent[name]:
            return b""
        with path.open("rb") as file:
            file.seek(self._sent[name])
            piece = file.read(BYTES_PER_PIECE)
        return piece if name == LOG else piece[: piece.rfind(b"\n") + 1]


class Inbox:
    """The submitting side: gets everything from the first piece on, so that a later run can take over from a dead one.

    files: where the growing files go.
    """

    def __init__(self, exchange: Exchange, files: Mapping[str, Path]) -> None:
        self._exchange, self._files = exchange, files
        self._last = dict.fromkeys(GROWING, "")
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)

    def receive_growth(self) -> None:
        for name, path in self._files.items():
            for piece in self._exchange.names(f"pieces/{name}", after=self._last[name]):
                content = self._exchange.read(piece)
                with path.open("ab") as file:
                    file.write(content or b"")
                self._last[name] = piece

    def receive_the_rest(self, work: Path) -> None:
        """Raises InputError for a file that is none of those a job leaves."""
        for stored in self._exchange.names("files"):
            name = stored.removeprefix("files/")
            if name not in AT_THE_END and not name.startswith(FOLDERS_AT_THE_END):
                raise InputError(f"{self._exchange.url}/{shown(stored)} is nothing that a job leaves")
            try:
                path = work / relative_path(name)
            except UnsafeName as error:
                raise InputError(f"{self._exchange.url}/{shown(stored)} is {error}") from None
            path.parent.mkdir(parents=True, exist_ok=True)
            self._exchange.download(stored, path)


def piece_name(name: str, number: int) -> str:
    return f"pieces/{name}/{number:09d}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class StateIndex(BaseModel):
    """The newest whole state: path in the state folder -> object of the exchange."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: NonNegativeInt = 0
    files: dict[str, str] = {}


class StateKeeper:
    """Checkpoints and other progress in a job's state folder, kept in an exchange as one consistent whole.

    A checkpoint may be several files: hard links are made of all of them between two looks that find the same, and
    the index that names their copies is written last. So an index never names parts of two checkpoints.
    """

    def __init__(self, exchange: Exchange, state: Path) -> None:
        self._exchange, self._state = exchange, state
        self._links = state.with_name("kept")
        self._index = StateIndex()
        self._kept: dict[str, tuple[int, ...]] = {}

    def restore(self) -> int:
        """Bring back the state of an attempt before; returns the number of files. Raises InputError."""
        content = self._exchange.read(STATE_INDEX)
        if content is None:
            return 0
        try:
            self._index = StateIndex.model_validate_json(content)
            paths = [self._state / relative_path(name) for name in self._index.files]
        except (ValidationError, UnsafeName) as error:
            raise InputError(f"{self._exchange.url}/{STATE_INDEX} is damaged: delete it ({error})") from None
        for path, name in zip(paths, self._index.files.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._exchange.download(name, path)
        self._kept = self._look()
        return len(paths)

    def keep(self) -> None:
        """Send what is new, if more than curves is: these are sent as they grow, and to MLflow."""
        found = self._link_all()
        curves = dict.fromkeys((str(Path(name).relative_to(STATE)) for name in (CURVES, *MLFLOW_OUTBOX)), ())
        if found | curves == self._kept | curves:
            return
        generation = self._index.generation + 1
        files = {}
        for number, (name, identity) in enumerate(found.items()):
            if self._kept.get(name) == identity:
                files[name] = self._index.files[name]
            else:
                files[name] = f"{STATE}/{generation:09d}/{number}"
                self._exchange.upload(self._links / name, files[name])
        old = set(self._index.files.values()) - set(files.values())
        self._index = StateIndex(generation=generation, files=files)
        self._exchange.write(STATE_INDEX, self._index.model_dump_json().encode())
        self._kept = found
        self._exchange.delete(sorted(old))
        shutil.rmtree(self._links, ignore_errors=True)

    def _link_all(self) -> dict[str, tuple[int, ...]]:
        """Links to all files as they were at one moment; what was kept last where the job never rests."""
        for _ in range(SCANS):
            shutil.rmtree(self._links, ignore_errors=True)
            with suppress(FileNotFoundError):  # removed under our eyes
                found = self._look()
                for name in found:
                    (self._links / name).parent.mkdir(parents=True, exist_ok=True)
                    os.link(self._state / name, self._links / name)
                if self._look() == found:
                    return found
        return self._kept

    def _look(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for path in sorted(self._state.rglob("*")):
            name = path.relative_to(self._state).as_posix()
            if _is_kept(PurePosixPath(name)) and path.is_file() and not path.is_symlink():
                status = path.stat()
                found[name] = (status.st_ino, status.st_mtime_ns, status.st_size)
        return found


def _is_kept(name: PurePosixPath) -> bool:
    return name.parts[0] not in NOT_KEPT and not any(part.startswith(".") for part in name.parts)
