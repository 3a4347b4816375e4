"""The rule that a challenger must not answer much more slowly.

Both times were taken when the benchmarks ran, each in a run of its own, so they are compared only where what they ran
on is the same. On a processor its time is compared, not the clock's, which whatever else runs there would change.
"""

from collections.abc import Sequence
from statistics import median

from jobs.benchmarking.speed import Speed, Timed
from orchestration.promotion.rules import Finding

WAY_OUT = "or set promotion.max_slowdown to null"


class NotComparable(Exception):
    """Why two times say nothing about each other."""


def compare_speed(
    benchmark: str, ours: Speed | None, theirs: Speed | None, run: tuple[str, str], max_slowdown: float
) -> Finding:
    """Seconds an answer, median over shards of challenger over champion. run: system and prompt mode of both."""

    def finding(found: str, passed: bool = False) -> Finding:
        rule = f"seconds an answer at most {1 + max_slowdown:g} times the champion's"
        return Finding(subject=benchmark, rule=rule, found=found, passed=passed)

    if ours is None:
        return finding(f"not measured here: `dvc repro -f -s benchmark@{benchmark}`, {WAY_OUT}")
    if theirs is None:
        return finding(f"not comparable: no times are kept with the champion; {WAY_OUT}")
    try:
        slower = slowdown(ours, theirs, run)
    except NotComparable as error:
        return finding(f"not comparable: {error}; {WAY_OUT}")
    return finding(f"{slower:.2f} times", slower <= 1 + max_slowdown)


def slowdown(ours: Speed, theirs: Speed, run: tuple[str, str]) -> float:
    """Seconds an answer, ours over theirs, median over shards. Raises NotComparable."""
    challenger, champion = _of_run(ours, run), _of_run(theirs, run)
    here, there = ({one.machine for one in timed} for timed in (challenger, champion))
    if here != there or len(here) != 1:
        raise NotComparable(f"on {' and '.join(sorted(here))}, the other on {' and '.join(sorted(there))}")
    if [one.answers for one in challenger] != [one.answers for one in champion]:
        raise NotComparable("the shards have changed")
    return median(
        mine.compared_seconds / before.compared_seconds
        for mine, before in zip(challenger, champion, strict=True)
    )


def _of_run(speed: Speed, run: tuple[str, str]) -> Sequence[Timed]:
    return [one for shard in speed.shards for one in shard if (one.system, one.mode) == run]
