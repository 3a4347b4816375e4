"""What an action costs, beside its target."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, kw_only=True)
class Cost:
    """wall, cpu: seconds. target: seconds of an idle machine; None where none was set."""

    what: str
    wall: float
    cpu: float
    target: float | None = None

    def row(self) -> tuple[str, str, str, str]:
        return (
            self.what,
            f"{self.wall:.1f}",
            f"{self.cpu:.1f}",
            f"{self.target:g}" if self.target else "–",
        )


def cost(what: str, action: Callable[[], object], target: float | None = None, repeats: int = 1) -> Cost:
    """Of this process and the children it waits for; medians."""
    walls, cpus = [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), _processor_seconds()
        action()
        walls.append(time.perf_counter() - start)
        cpus.append(_processor_seconds() - cpu)
    return Cost(what=what, wall=median(walls), cpu=median(cpus), target=target)


def _processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
