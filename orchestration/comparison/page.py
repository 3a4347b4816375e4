"""A comparison as one HTML page, with the style of the reports: everything is inside the one file."""

from pathlib import Path

from jobs.pages.template import page_environment
from jobs.runner.whole_file import write_whole
from orchestration.comparison.comparison import Comparison
from orchestration.comparison.table import INTERVALS, data_cells, figure_cells, summary, title


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


def write_page(comparison: Comparison, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, render_page(comparison))
