"""The table that `make demo` ends with."""

import json
from pathlib import Path

from data_contracts.errors import InputError
from jobs.benchmark_report import PAGE_FILE
from jobs.runner.layout import WHOLE_REPORT, StageAddress, output_folder
from jobs.runner.lineage import read_lineage
from jobs.runner.run import read_last_run

COLUMNS = ("iou", "giou", "ciou", "boundary_iou", "n_acc", "t_acc", "mean_length")


def print_results(root: Path) -> None:
    """Print the report's figures, what each stage took, and where to look. Raises InputError before a first report."""
    lineage = read_lineage(root)
    folder = root / output_folder(lineage.profile, StageAddress("benchmark_report"))
    if not (folder / "summary.json").exists():
        raise InputError(f"no report in {folder.relative_to(root)}: run `dvc repro` first")
    summary = json.loads((folder / "summary.json").read_text())
    print(f"\nResults, profile {lineage.profile}\n")
    print_figures(summary)
    print_times(root, list(lineage.addresses))
    print("\nWhere to look")
    whole = root / "reports" / lineage.profile / WHOLE_REPORT
    print(f"  report    {(whole if whole.exists() else folder / PAGE_FILE).relative_to(root)}")
    print("  pages     make ui")
    print("  quality   the levels that matter are set for profile long (README.md)\n")


def print_figures(summary: dict[str, float | int | str | None]) -> None:
    """One row for each thing measured, one column for each metric that it has."""
    rows: dict[str, dict[str, str]] = {}
    for key, value in summary.items():
        name, metric = key.rsplit(".", 1)
        if isinstance(value, str):
            print(f"  {name}: {value}")
        elif value is not None:
            rows.setdefault(name, {})[metric] = f"{value:.3f}" if isinstance(value, float) else str(value)
    columns = list(dict.fromkeys(metric for row in rows.values() for metric in row if metric in COLUMNS))
    width = max(map(len, rows))
    print(f"\n  {'':{width}}" + "".join(f"{column:>14}" for column in columns))
    for name, row in rows.items():
        if any(column in row for column in columns):
            print(f"  {name:{width}}" + "".join(f"{row.get(column, ''):>14}" for column in columns))


def print_times(root: Path, addresses: list[StageAddress]) -> None:
    runs = [(address, run) for address in addresses if (run := read_last_run(root, address)) is not None]
    print(f"\nTime: {sum(run.seconds for _, run in runs) / 60:.1f} minutes in jobs, the longest of them")
    for address, run in sorted(runs, key=lambda pair: -pair[1].seconds)[:6]:
        print(f"  {address!s:24}  {run.seconds:6.0f} s")
