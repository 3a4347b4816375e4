"""The logs of a job's pods, gathered in the job's log file as they grow."""

import math
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from kubernetes import client
from pydantic import BaseModel, Field

from orchestration.launching.job_files import log_file
from orchestration.launching.kubernetes.api import ClusterApi
from orchestration.launching.kubernetes.status import place_of

SECONDS_OF_OVERLAP = 10  # a line may be readable a little later than its time says


class _Position(BaseModel):
    """How far a pod's log has been read. at: time of the last line, in ns. lines: that have this time."""

    at: int = -1
    lines: int = 0


class _Positions(BaseModel):
    """By the pod's uid; kept beside the log, so that whoever watches the job next goes on where this one stopped."""

    pods: dict[str, _Position] = Field(default_factory=dict)


class PodLogs:
    """Of one job; work: its work folder. Of several pods, lines of all but the first begin with their place."""

    def __init__(self, work: Path) -> None:
        self._log = log_file(work)
        self._record = work / "pod_logs.json"
        self._asked: dict[str, float] = {}

    def follow(self, api: ClusterApi, pods: Sequence[client.V1Pod]) -> None:
        """Append what is new. Raises ClusterError."""
        if not self._record.parent.is_dir():  # the job's result has been taken
            return
        positions = self._read()
        for pod in sorted(pods, key=lambda pod: (pod.metadata.creation_timestamp, place_of(pod))):
            uid = pod.metadata.uid
            position = positions.pods.setdefault(uid, _Position())
            asked = time.monotonic()
            lines = new_lines(api.pod_log(pod, self._since(uid)), position)
            prefix = f"[node {place_of(pod)}] ".encode() if place_of(pod) else b""
            with self._log.open("ab") as file:
                file.writelines(prefix + line for line in lines)
            self._asked[uid] = asked
        self._record.write_text(positions.model_dump_json())

    def _since(self, uid: str) -> int | None:
        """Seconds before now, by the cluster's clock, from which lines may be new; None for all."""
        if uid not in self._asked:
            return None
        return math.ceil(time.monotonic() - self._asked[uid]) + SECONDS_OF_OVERLAP

    def _read(self) -> _Positions:
        if not self._record.exists() or not self._log.exists():
            return _Positions()
        return _Positions.model_validate_json(self._record.read_text())


def new_lines(answer: bytes, position: _Position) -> Iterator[bytes]:
    """Complete lines after the position, without their times; moves the position on.

    A line ends with a line feed: progress bars write carriage returns within one. What has no time before it is not
    of the job: so the cluster says that it cannot read a log.
    """
    known = position.lines  # of the lines that have the position's time
    *lines, _ = answer.split(b"\n")  # the last one is still being written
    for line in lines:
        stamp, _, text = line.partition(b" ")
        try:
            at = nanoseconds(stamp.decode())
        except ValueError:
            continue
        if at < position.at:
            continue
        if at == position.at and known > 0:
            known -= 1
            continue
        position.lines = position.lines + 1 if at == position.at else 1
        position.at = at
        known = 0
        yield text + b"\n"


def nanoseconds(stamp: str) -> int:
    """Of an RFC 3339 time with up to nine decimals, since 1970."""
    moment, _, rest = stamp.partition(".")
    decimals = rest.rstrip("Z").split("+")[0].split("-")[0]
    zone = stamp[len(moment) + 1 + len(decimals) :] if rest else ""
    whole = datetime.fromisoformat(f"{moment}{zone}")
    return int(whole.timestamp()) * 10**9 + int(decimals.ljust(9, "0") or 0)
