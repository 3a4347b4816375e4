"""Puts all benchmark results into one HTML page that opens from disk, offline, and prints well."""

import json
from pathlib import Path

from pydantic import Field

from data_contracts.errors import InputError
from jobs.benchmarking.results import (
    ADAPTIVE,
    GALLERY_FILE,
    GALLERY_SCHEMA,
    METRICS_FILE,
    SAMPLES_FILE,
    SAMPLES_SCHEMA,
    BenchmarkMetrics,
    TokenizerMetrics,
    read_metrics,
    read_table,
)
from jobs.benchmarking.vqa_results import VQA_METRICS_FILE, VqaMetrics
from jobs.pages.figures import Plot
from jobs.report.overlays import contact_sheet
from jobs.report.page import BenchmarkSection, ReportPage, gallery_samples
from jobs.report.plots import giou_by_system, iou_by_length, length_by_complexity, length_histogram
from jobs.report.verdicts import Contest, baseline_verdict, contests, coverage, lost_contests
from jobs.runner.command_line import run_from_command_line
from jobs.runner.context import Check, JobConfig, StageContext, StageReport

PAGE_FILE = "report.html"
SUMMARY_FILE = "summary.json"
SUMMARY_METRICS = ("giou", "ciou", "miou", "boundary_iou", "n_acc", "t_acc", "mean_length")

HEADLINE = (
    "ciou",
    "boundary_iou",
    "n_acc",
    "t_acc",
    "mean_length",
)  # of the challenger, beside everyone's gIoU


class Config(JobConfig):
    scope: str = Field(
        min_length=1,
        description="what figures of this profile do and do not mean, printed at the top of the page",
    )


def run(config: Config, context: StageContext) -> StageReport:
    tokenizer = read_metrics(context.inputs["tokenizer_benchmark"] / METRICS_FILE, TokenizerMetrics)
    sections = [_section(folder) for folder in _benchmark_folders(context.inputs["benchmark"])]
    benchmarks = [section.metrics for section in sections]
    question_sets = [
        read_metrics(path, VqaMetrics)
        for path in sorted(context.inputs["benchmark"].glob(f"*/{VQA_METRICS_FILE}"))
    ]
    results = contests(tokenizer, benchmarks)
    page = ReportPage(
        scope=config.scope,
        tokenizer=tokenizer,
        tokenizer_plot=iou_by_length(tokenizer.by_length, benchmarks),
        sections=sections,
        question_sets=question_sets,
        contests=results,
    )
    (context.output / PAGE_FILE).write_text(page.render(), encoding="utf-8")
    summary = summarise(tokenizer, benchmarks) | summarise_questions(question_sets)
    (context.output / SUMMARY_FILE).write_text(json.dumps(summary, indent=1) + "\n")
    _write_pictures(page, context.output / "pictures")
    return StageReport(figures=_headline(tokenizer, benchmarks, results), checks=(_beats_baselines(results),))


def summarise(
    tokenizer: TokenizerMetrics, benchmarks: list[BenchmarkMetrics]
) -> dict[str, float | int | str | None]:
    """Flat figures: `tokenizer.iou`, `<benchmark>.<system>[.<mode>].giou`, ..."""
    summary: dict[str, float | int | str | None] = {
        "tokenizer.iou": tokenizer.iou,
        "tokenizer.boundary_iou": tokenizer.boundary_iou,
        "tokenizer.mean_length": tokenizer.mean_length,
    }
    summary |= {f"tokenizer.{name}.iou": iou for name, iou in sorted(tokenizer.baselines.items())}
    for metrics in benchmarks:
        summary[f"{metrics.benchmark}.coverage"] = coverage(metrics)
        summary[f"{metrics.benchmark}.limit"] = metrics.limit
        summary[f"{metrics.benchmark}.expressions"] = metrics.expressions
        for one in metrics.systems:
            key = ".".join(part for part in (metrics.benchmark, one.system, one.mode) if part)
            for name in SUMMARY_METRICS:
                estimate = getattr(one, name)
                if estimate is not None:
                    summary[f"{key}.{name}"] = estimate.value
            if one.bits is not None:
                summary |= {f"{key}.bits": one.bits, f"{key}.malformed": one.malformed}
        for one in metrics.released:
            if one.system in metrics.learned:
                summary |= {
                    f"{metrics.benchmark}.released.{one.system}.{one.mode}.{name}": estimate.value
                    for name in ("giou", "ciou", "miou", "mean_length")
                    if (estimate := getattr(one, name)) is not None
                }
    return summary


def summarise_questions(question_sets: list[VqaMetrics]) -> dict[str, float | int | str | None]:
    """Flat figures: `<benchmark>.<system>.<official figure>`, and `.score`, the mean over questions."""
    summary: dict[str, float | int | str | None] = {}
    for metrics in question_sets:
        summary |= {
            f"{metrics.benchmark}.coverage": coverage(metrics),
            f"{metrics.benchmark}.limit": metrics.limit,
            f"{metrics.benchmark}.questions": metrics.questions,
        }
        for one in metrics.systems:
            key = f"{metrics.benchmark}.{one.system}"
            summary |= {f"{key}.{name}": value for name, value in one.figures.items()}
            summary[f"{key}.score"] = one.score.value
    return summary


def _benchmark_folders(folder: Path) -> list[Path]:
    found = sorted(path.parent for path in folder.glob(f"*/{METRICS_FILE}"))
    if not found:
        raise InputError(f"{folder}: no benchmark results inside; run the benchmark stage first")
    return found


def _section(folder: Path) -> BenchmarkSection:
    metrics = read_metrics(folder / METRICS_FILE, BenchmarkMetrics)
    table = read_table(folder / SAMPLES_FILE, SAMPLES_SCHEMA).to_pandas()
    gallery = read_table(folder / GALLERY_FILE, GALLERY_SCHEMA).to_pandas()
    answered = table[(table["mode"] == ADAPTIVE) & (table["length"] > 0)]
    measured = answered[(answered["system"] == metrics.challenger) & ~answered["no_target"]]
    plots = [
        giou_by_system(metrics),
        length_by_complexity(measured),
        length_histogram(answered, metrics.max_length, metrics.learned),
    ]
    return BenchmarkSection(metrics, plots, gallery_samples(gallery))


def _beats_baselines(results: list[Contest]) -> Check:
    details: dict[str, object] = {}
    for contest in results:
        points = f"{100 * contest.difference:+.1f} points"
        interval = "" if contest.low is None else f", at least {100 * contest.low:+.1f}"
        name = f"{contest.where}: {contest.learned} / {contest.baseline}"
        details[name] = f"{points}{interval}: {'better' if contest.won else 'not clearly better'}"
    return Check(
        name="beats_baselines",
        passed=bool(results) and all(contest.won for contest in results),
        reason=" ".join(filter(None, (baseline_verdict(results), lost_contests(results)))),
        details=details,
    )


def _headline(
    tokenizer: TokenizerMetrics, benchmarks: list[BenchmarkMetrics], results: list[Contest]
) -> dict[str, float | int | str]:
    figures: dict[str, float | int | str] = {"tokenizer_iou": round(tokenizer.iou, 4)}
    for metrics in benchmarks:
        figures[f"{metrics.benchmark}_coverage"] = coverage(metrics)
        for one in metrics.systems:
            if one.mode in (ADAPTIVE, "") and one.giou is not None:
                figures[f"{metrics.benchmark}_{one.system}_giou"] = round(one.giou.value, 4)
        challenger = metrics.find(metrics.challenger, ADAPTIVE)
        for name in HEADLINE if challenger else ():
            if (estimate := getattr(challenger, name)) is not None:
                figures[f"{metrics.benchmark}_{metrics.challenger}_{name}"] = round(estimate.value, 4)
    figures["baselines_beaten"] = f"{sum(contest.won for contest in results)} of {len(results)}"
    return figures


def _write_pictures(page: ReportPage, folder: Path) -> None:
    folder.mkdir()

    def write(plot: Plot, prefix: str = "") -> None:
        (folder / f"{prefix}{plot.name}.png").write_bytes(plot.png)

    write(page.tokenizer_plot)
    for section in page.sections:
        for plot in section.plots:
            write(plot, f"{section.metrics.benchmark}_")
        if section.gallery:
            (folder / f"{section.metrics.benchmark}_samples.png").write_bytes(contact_sheet(section.gallery))


if __name__ == "__main__":
    run_from_command_line("benchmark_report")
