"""What the figures say in words, computed so that the sentences cannot drift from the tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.benchmarking.results import ADAPTIVE, BenchmarkMetrics, Comparison, TokenizerMetrics
from jobs.benchmarking.vqa_results import VqaMetrics
from jobs.report.labels import MODES, system_label


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One learned result against one trivial baseline. low: lower end of the interval, where there is one."""

    where: str
    learned: str
    baseline: str
    difference: float
    low: float | None
    won: bool

    def __str__(self) -> str:
        sign = f"{100 * self.difference:+.1f} points"
        return f"{self.where}: {self.learned} against {self.baseline} {sign}"


def contests(tokenizer: TokenizerMetrics, benchmarks: Sequence[BenchmarkMetrics]) -> list[Contest]:
    """Every learned result against every trivial baseline.

    On a benchmark a win means that the whole interval of the paired difference lies above zero; for the
    tokenizer, whose benchmark states no interval, that its IoU is higher.
    """
    found = [
        Contest(
            where="tokenizer benchmark",
            learned="mask tokenizer",
            baseline=system_label(name).name,
            difference=tokenizer.iou - iou,
            low=None,
            won=tokenizer.iou > iou,
        )
        for name, iou in sorted(tokenizer.baselines.items())
    ]
    for metrics in benchmarks:
        for comparison in metrics.comparisons:
            if comparison.system in metrics.learned and comparison.reference in metrics.baselines:
                found.append(
                    Contest(
                        where=metrics.benchmark,
                        learned=f"{system_label(comparison.system).name} ({MODES[comparison.mode]})",
                        baseline=system_label(comparison.reference).name,
                        difference=comparison.difference.value,
                        low=comparison.difference.low,
                        won=comparison.better,
                    )
                )
    return found


def baseline_verdict(results: Sequence[Contest]) -> str:
    """One sentence: whether every learned result is better than every trivial baseline."""
    lost = sum(not contest.won for contest in results)
    if not results:
        return "No learned result was compared with a trivial baseline."
    if not lost:
        return f"Every learned result is better than every trivial baseline ({len(results)} comparisons)."
    return f"{lost} of {len(results)} comparisons with a trivial baseline are not clearly won."


def lost_contests(results: Sequence[Contest], named: int = 4) -> str:
    """The comparisons that are not won, at most `named` of them by name; empty where there are none."""
    lost = [str(contest) for contest in results if not contest.won]
    return "; ".join(lost[:named]) + ("; …" if len(lost) > named else "")


def reinforcement_verdict(metrics: BenchmarkMetrics) -> str:
    """One sentence: what GRPO changed in adaptive answers, in gIoU and in length."""
    after = metrics.find(metrics.challenger, ADAPTIVE)
    before = metrics.find(metrics.starting_point or "", ADAPTIVE)
    comparison = next(
        (
            one
            for one in metrics.comparisons
            if (one.system, one.reference, one.mode) == (metrics.challenger, metrics.starting_point, ADAPTIVE)
        ),
        None,
    )
    if comparison is None or after is None or before is None:
        return "GRPO was not compared with its starting point."
    sentence = f"GRPO against its starting point, adaptive: gIoU {points(comparison)}, {_reading(comparison)}"
    if after.mean_length and before.mean_length:
        change = after.mean_length.value - before.mean_length.value
        sentence += f"; {change:+.1f} mask tokens an answer"
    return sentence + "."


def points(comparison: Comparison) -> str:
    """Difference in percentage points with its interval."""
    found = comparison.difference
    return f"{100 * found.value:+.2f} points ({100 * found.low:+.2f} to {100 * found.high:+.2f})"


def coverage(metrics: BenchmarkMetrics | VqaMetrics) -> str:
    """How much of the benchmark was evaluated."""
    if metrics.images == metrics.images_available:
        limit = "no limit" if metrics.limit is None else f"limit {metrics.limit}"
        return f"whole benchmark, {metrics.images} images ({limit})"
    return (
        f"LIMITED to the first {metrics.images} of {metrics.images_available} images (limit {metrics.limit}): "
        "not a result for this benchmark"
    )


def _reading(comparison: Comparison) -> str:
    if comparison.difference.low > 0:
        return "better"
    return "worse" if comparison.difference.high < 0 else "no clear difference"
