"""A comparison as one HTML page, with the style of the reports: everything is inside the one file."""

from pathlib import Path

from jobs.pages.template import page_environment
from jobs.runner.whole_file import write_whole
from orchestration.comparison.comparison import Comparison, compare
from orchestration.comparison.table import INTERVALS, data_cells, figure_cells, summary, title
from orchestration.comparison.versions import DEFAULT_AFTER, DEFAULT_BEFORE


def render_page(comparison: Comparison) -> str:
    environment = page_environment("orchestration.comparison")
    return environment.get_template("page.html.j2").render(
        comparison=comparison,
        summary=summary(comparison),
        title=title,
        intervals=INTERVALS,
        data_cells=data_cells,
        figure_cells=figure_cells,
    )


def render_default(root: Path) -> str:
    """Of champion and challenger. Raises InputError where there are none."""
    return render_page(compare(root, DEFAULT_BEFORE, DEFAULT_AFTER))


def write_page(comparison: Comparison, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, render_page(comparison))
