"""What our assets cost over an empty one: from materialize to the job's first line, and when there is nothing to do.

`dagster asset materialize` of `base_weights` (profile smoke: a job of a moment) and of an empty asset, in turn.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil

from tests.benchmarks import empty_asset
from tests.benchmarks.harness import machine, publish, table
from tests.cluster.project import change
from tests.lineage.project import copy_repository, environment, run
from tests.services.slurm import slurm

STAGE = "base_weights"
FIRST_LINE = f"{STAGE}: started"
TARGETS = {"local": 3.0, "slurm": 6.0, "nothing": 1.0}  # seconds over the empty asset, on an idle machine


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds since the command was given, on the clock and of processors (of all its processes).

    first_line: until it showed; None where it never did. end: of the command.
    """

    first_line: tuple[float, float] | None
    end: tuple[float, float]


def materialize(root: Path, module: str, asset: str, first_line: str) -> Times:
    """Of one asset in a process of its own. Raises CalledProcessError."""
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", module, "--select", asset]
    start, used_before = time.perf_counter(), _children_seconds()
    process = subprocess.Popen(
        command,
        cwd=root,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    shown = None
    assert process.stdout is not None
    for line in process.stdout:
        if shown is None and line.startswith(first_line):
            shown = (time.perf_counter() - start, _seconds_of(psutil.Process(process.pid)))
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    return Times(first_line=shown, end=(time.perf_counter() - start, _children_seconds() - used_before))


def _seconds_of(process: psutil.Process) -> float:
    """Processor seconds of a running process and of all it has started."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:4]) for member in family)


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def forget(root: Path) -> None:
    """As if the stage had never run."""
    for path in (root / "models", root / ".dvc" / "cache", root / ".work" / STAGE):
        shutil.rmtree(path, ignore_errors=True)
    (root / "dvc.lock").unlink(missing_ok=True)


def measure(root: Path, repeats: int, on_slurm: bool) -> str:
    run(root, "-m", "orchestration.cli", "sync")  # the instance and its database are made
    empty, launched, nothing, submitted = [], [], [], []
    with ExitStack() as stack:
        if on_slurm:
            cluster = stack.enter_context(slurm())
            os.environ["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
        for _ in range(repeats):
            empty.append(materialize(root, "tests.benchmarks.empty_asset", "empty", empty_asset.FIRST_LINE))
            launched.append(anew(root, "local"))
            nothing.append(materialize(root, "orchestration.definitions", STAGE, FIRST_LINE))
            if on_slurm:
                submitted.append(anew(root, "slurm"))
    assert all(times.first_line is None for times in nothing)
    rows = [
        row(
            "materialize to the job's first line", first_lines(empty), first_lines(launched), TARGETS["local"]
        ),
        row(
            "the same, when there is nothing to do: to its end",
            ends(empty),
            ends(nothing),
            TARGETS["nothing"],
        ),
    ]
    if on_slurm:
        what = "to the job's first line, on a Slurm of two nodes here"
        rows.insert(1, row(what, first_lines(empty), first_lines(submitted), TARGETS["slurm"]))
    busy = os.getloadavg()[0]
    columns = ("what", "empty asset, s", "ours, s", "more, s", "more, processor s", "target")
    return (
        f"Medians of {repeats} ({machine()}; {busy:.1f} processes wanted its {os.cpu_count()} cores):\n\n"
        f"{table(columns, rows)}"
    )


def anew(root: Path, launcher: str) -> Times:
    forget(root)
    change(root / "params.yaml", "resources", {"launcher": launcher})
    return materialize(root, "orchestration.definitions", STAGE, FIRST_LINE)


Pairs = Sequence[tuple[float, float]]


def first_lines(measured: Sequence[Times]) -> Pairs:
    return [times.first_line for times in measured if times.first_line is not None]


def ends(measured: Sequence[Times]) -> Pairs:
    return [times.end for times in measured]


def row(what: str, empty: Pairs, ours: Pairs, target: float) -> tuple[str, ...]:
    """Medians on the clock; the differences between them, on the clock and of processors."""
    (base, base_cpu), (cost, cost_cpu) = (
        tuple(median(values) for values in zip(*pairs, strict=True)) for pairs in (empty, ours)
    )
    figures = (base, cost, cost - base, cost_cpu - base_cpu)
    return (what, *(f"{figure:.1f}" for figure in figures), f"{target:g}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.launch_overhead", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--slurm", action="store_true", help="also on a Slurm of its own (slurm-wlm, munge, root)"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        root = copy_repository(Path(temporary) / "project")
        publish("launch_overhead", measure(root, options.repeats, options.slurm), options.write)


if __name__ == "__main__":
    main()
