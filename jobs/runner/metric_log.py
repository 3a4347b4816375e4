"""Training curves as a file of JSON lines beside the checkpoints."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class MetricPoint(NamedTuple):
    step: int
    values: dict[str, float]


class MetricLog:
    """Append-only curves; after a resume the points beyond the checkpoint are written again and win."""

    def __init__(self, path: Path, listeners: tuple[Callable[[MetricPoint], None], ...] = ()) -> None:
        self.path = path
        self._listeners = listeners
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            with path.open("a") as file:  # after the line a killed process was writing
                file.write("\n")

    def append(self, step: int, values: Mapping[str, float]) -> None:
        point = MetricPoint(step, dict(values))
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for listen in self._listeners:
            listen(point)

    def read(self) -> Iterator[MetricPoint]:
        """Points in step order, the last one written for each step."""
        if not self.path.exists():
            return
        points: dict[int, dict[str, float]] = {}
        for line in self.path.read_text().splitlines():
            try:
                point = json.loads(line)
            except json.JSONDecodeError:  # torn by a kill
                continue
            points[point.pop("step")] = point
        for step in sorted(points):
            yield MetricPoint(step, points[step])
