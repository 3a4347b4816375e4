"""What a run has for MLflow, kept in files beside its checkpoints until MLflow has it.

A job only ever appends to its outbox, which survives a kill. Sending reads it from where the last sending came to;
sent twice, a metric, parameter or tag is the same as sent once, so being cut off anywhere loses and doubles nothing.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jobs.runner.whole_file import write_whole

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

METRICS_PER_REQUEST, PARAMETERS_PER_REQUEST = 1000, 100  # limits of MLflow's log-batch request
POINTS_AT_ONCE = 100  # of the curves, before it is written down that MLflow has them
KEY_TAG = "alto.outbox"  # finds a run whose creation was not answered


class MlflowRun(NamedTuple):
    experiment_id: str
    run_id: str


class Sent(NamedTuple):
    """How far MLflow has it: in bytes of the entries."""

    run: MlflowRun
    size: int


@dataclass(frozen=True)
class Outbox:
    folder: Path

    def begin(self, profile: str, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any]) -> None:
        """Once for each run; a job that goes on only says that it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._end_torn_line()
        if next(self._read(0), None) is not None:
            self.set_status("RUNNING")
            return
        key = os.urandom(16).hex()
        self._append("begin", profile=profile, name=name, tags={**tags, KEY_TAG: key})
        self._append("parameters", values={name: str(value) for name, value in parameters.items()})

    def add_point(self, step: int, values: Mapping[str, float]) -> None:
        self._append("metrics", step=step, values=dict(values))

    def add_tags(self, values: Mapping[str, str]) -> None:
        self._append("tags", values=dict(values))

    def add_artifacts(self, files: Mapping[str, Path]) -> None:
        """files: path in the run's artifacts -> file, copied."""
        for name, file in files.items():
            (self._artifacts / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, self._artifacts / name)
        self._append("artifacts")

    def set_status(self, status: RunStatus) -> None:
        self._append("status", status=status)

    @property
    def run(self) -> MlflowRun | None:
        """Of MLflow, once it has begun there."""
        return self._sent.run if self._sent else None

    @property
    def is_sent(self) -> bool:
        sent = self._sent
        return next(self._read(sent.size if sent else 0), None) is None

    @property
    def is_open(self) -> bool:
        """Whether the run has begun, and nobody has said how it ended."""
        entries = [entry for entry, _ in self._read(0)]
        statuses = [entry["status"] for entry in entries if entry["kind"] == "status"]
        return bool(entries) and (not statuses or statuses[-1] == "RUNNING")

    @property
    def key(self) -> str:
        return str(self._beginning["tags"][KEY_TAG])

    @property
    def profile(self) -> str:
        return str(self._beginning["profile"])

    @property
    def name(self) -> str:
        """Of the run; its address."""
        return str(self._beginning["name"])

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Whether nobody else holds it, which inside this one does: the running job, or one who sends."""
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def send(self, client: Any, experiment_id: str) -> None:
        """Send what MLflow does not have yet. Raises whatever its client raises."""
        sent = self._sent or self._begin_in(client, experiment_id)
        for entries, size in self._batches(sent.size):
            self._send(client, sent.run.run_id, entries)
            self._write_sent(Sent(sent.run, size))

    def _begin_in(self, client: Any, experiment_id: str) -> Sent:
        found = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{self.key}'")
        begun = self._beginning
        run = (
            found[0]
            if found
            else client.create_run(experiment_id, begun["time"], begun["tags"], begun["name"])
        )
        sent = Sent(MlflowRun(experiment_id, run.info.run_id), 0)
        self._write_sent(sent)
        return sent

    def _batches(self, offset: int) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """Entries that one request can take, and where they end: points together, others alone."""
        points: list[dict[str, Any]] = []
        size = offset
        for entry, end in self._read(offset):
            if points and (entry["kind"] != "metrics" or len(points) == POINTS_AT_ONCE):
                yield points, size
                points = []
            size = end
            if entry["kind"] == "metrics":
                points.append(entry)
            else:
                yield [entry], size
        if points:
            yield points, size

    def _send(self, client: Any, run_id: str, entries: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        entry = entries[0]
        if entry["kind"] == "metrics":
            metrics = [
                Metric(name, value, point["time"], point["step"])
                for point in entries
                for name, value in point["values"].items()
            ]
            for start in range(0, len(metrics), METRICS_PER_REQUEST):
                client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_REQUEST])
        elif entry["kind"] == "parameters":
            parameters = [Param(name, value) for name, value in entry["values"].items()]
            for start in range(0, len(parameters), PARAMETERS_PER_REQUEST):
                client.log_batch(run_id, params=parameters[start : start + PARAMETERS_PER_REQUEST])
        elif entry["kind"] == "tags":
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in entry["values"].items()])
        elif entry["kind"] == "artifacts" and self._artifacts.is_dir():
            client.log_artifacts(run_id, str(self._artifacts))
            shutil.rmtree(self._artifacts)
        elif entry["kind"] == "status" and entry["status"] == "RUNNING":
            client.update_run(run_id, status="RUNNING")
        elif entry["kind"] == "status":
            client.set_terminated(run_id, entry["status"], entry["time"])

    @property
    def _beginning(self) -> dict[str, Any]:
        return next(self._read(0))[0]

    @property
    def _entries(self) -> Path:
        return self.folder / "entries.jsonl"

    @property
    def _artifacts(self) -> Path:
        return self.folder / "artifacts"

    def _append(self, kind: str, **values: Any) -> None:
        entry = {"kind": kind, "time": time.time_ns() // 10**6, **values}  # MLflow counts milliseconds
        with self._entries.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _end_torn_line(self) -> None:
        if self._entries.exists() and not self._entries.read_bytes().endswith(b"\n"):
            with self._entries.open("a") as file:
                file.write("\n")

    def _read(self, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Whole entries from this byte on, and where each ends."""
        if not self._entries.exists():
            return
        with self._entries.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # being written
                    return
                offset += len(line)
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # torn by a kill
                    continue
                yield entry, offset

    @property
    def _sent(self) -> Sent | None:
        path = self.folder / "sent.json"
        if not path.exists():
            return None
        content = json.loads(path.read_text())
        return Sent(MlflowRun(*content["run"]), content["size"])

    def _write_sent(self, sent: Sent) -> None:
        write_whole(self.folder / "sent.json", json.dumps(sent._asdict()))
