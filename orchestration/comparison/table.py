"""A comparison for the terminal, and how its figures are said here and on the page."""

from collections.abc import Sequence

from jobs.report.labels import MODES
from orchestration.comparison.comparison import Comparison
from orchestration.comparison.differences import DataChange
from orchestration.comparison.figures import LEVEL, Figure, Measurement

NOTHING = "–"
SHORT = 12  # characters shown of a hash
NAMES = {
    "giou": "gIoU",
    "ciou": "cIoU",
    "miou": "mIoU",
    "iou": "IoU",
    "boundary_iou": "boundary IoU",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    "mean_length": "mean length, tokens",
}
COUNTED = {"mean_length"}  # not a share
INTERVALS = (
    f"Differences: second less first; in brackets the {100 * LEVEL:g} % interval of a paired bootstrap."
)


def text_table(comparison: Comparison) -> str:
    before, after, differences = comparison.before, comparison.after, comparison.differences
    lines = [f"{before.name}  →  {after.name}", summary(comparison), ""]
    lines += [INTERVALS, ""] if any(one.figures for one in comparison.measurements) else []
    lines += [f"code      {_commit(before.commit)}  →  {_commit(after.commit)}"]
    lines += [f"  {one.path}: read by {', '.join(one.stages)}" for one in differences.code]
    lines += _section(
        "parameters",
        [(one.name, one.before or NOTHING, "→", one.after or NOTHING) for one in differences.parameters],
    )
    if not differences.unknown:
        lines += _section("data and models", [data_cells(one) for one in differences.data])
    for measurement in comparison.measurements:
        rows = [figure_cells(figure) for figure in measurement.figures]
        if measurement.slowdown is not None:
            rows.append(("seconds an answer", "", "", f"× {measurement.slowdown:.2f}", ""))
        lines += _section(title(measurement), rows)
        lines += [f"  {note}" for note in measurement.notes]
    for extremes in comparison.extremes:
        for kind, samples in (("gains", extremes.gains), ("losses", extremes.losses)):
            rows = [
                (
                    f"{one.iou_before:.2f} → {one.iou_after:.2f}",
                    f"{one.length_before} → {one.length_after} tokens",
                    one.expression,
                )
                for one in samples
            ]
            if rows:
                lines += _section(f"{extremes.benchmark}: largest {kind} in IoU", rows)
    return "\n".join(lines)


def summary(comparison: Comparison) -> str:
    """One sentence."""
    differences = comparison.differences
    if differences.none:
        return "The same parameters, data and code."
    counts = [
        (len(differences.parameters), "parameters"),
        (len(differences.data), "outputs"),
        (len(differences.code), "code files"),
    ]
    told = [f"{count} {what}" for count, what in counts if count]
    said = [f"Different: {', '.join(told)}" if told else "The same parameters", differences.unknown]
    return f"{'; '.join(filter(None, said))}."


def title(measurement: Measurement) -> str:
    mode = f", {MODES[measurement.mode]} prompts" if measurement.mode else ""
    return f"{measurement.benchmark}{mode} (protocol: {measurement.protocol})"


def data_cells(change: DataChange) -> tuple[str, ...]:
    rows = ""
    if change.rows_before is not None or change.rows_after is not None:
        counts = ["?" if count is None else str(count) for count in (change.rows_before, change.rows_after)]
        rows = f"{counts[0]} → {counts[1]} rows"
    return change.address, short(change.before), "→", short(change.after), rows


def figure_cells(figure: Figure) -> tuple[str, ...]:
    """Name, before, after, difference with its interval, and what that says."""
    scale = 1 if figure.metric in COUNTED else 100
    before, after = (
        NOTHING if value is None else f"{scale * value:.2f}" for value in (figure.before, figure.after)
    )
    difference = ""
    if figure.difference is not None:
        value, low, high = (scale * part for part in figure.difference)
        difference = f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
    elif figure.before is not None and figure.after is not None:
        difference = f"{scale * (figure.after - figure.before):+.2f}, not of the same questions"
    name = NAMES.get(figure.metric, figure.metric)
    return (name if scale == 1 else f"{name}, %"), before, after, difference, figure.reading


def short(version: str | None) -> str:
    return NOTHING if version is None else version[:SHORT]


def _commit(commit: str) -> str:
    if not commit:
        return "not known"
    return commit[:SHORT] + (" with changes" if commit.endswith("-dirty") else "")


def _section(heading: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return (
            ["", f"{heading}: no difference"]
            if heading in ("parameters", "data and models")
            else ["", heading]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return ["", heading, *table]
