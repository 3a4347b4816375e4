"""What the benchmarks share: interleaved timing, tables, and the place in the documentation they go to."""

import argparse
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch

REPORT = Path(__file__).parents[2] / "docs" / "performance.md"


def interleaved(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each case.

    All cases run in turn, `repeats` times after one round that does not count, so that whatever else the
    machine does meets all of them alike; processor time leaves out the time that others had the core.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, case in cases.items():
            start = time.process_time()
            case()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: median(times) for name, times in seconds.items()}


def arguments(module_text: str | None, name: str, repeats: int) -> argparse.ArgumentParser:
    """Parser with what every benchmark takes; also sets one thread, which processor time is about."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.benchmarks.{name}",
        description=module_text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds to measure (default {repeats})")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    return parser


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratio(ours: float, theirs: float) -> str:
    """How many times faster ours is."""
    factor = theirs / ours
    digits = 2 if factor < 1 else 1 if factor < 20 else 0
    return f"{factor:.{digits}f}×"


def milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def publish(name: str, text: str, write: bool, report: Path = REPORT) -> None:
    """Print a result; with `write`, replace what stands between the markers of `name` in the report."""
    print(text)
    if not write:
        return
    begin, end = f"<!-- {name}: written by python -m tests.benchmarks.{name} -->", f"<!-- /{name} -->"
    content, found = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n{text}\n{end}",
        report.read_text(),
        flags=re.DOTALL,
    )
    if found != 1:
        sys.exit(f"{report.name} needs the markers `{begin}` and `{end}` exactly once")
    report.write_text(content)


def machine() -> str:
    """What the figures were measured with."""
    try:
        processors = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        processors = []
    processor = processors[0] if processors else platform.machine()
    return f"{processor}, one thread, float32, torch {torch.__version__}"
