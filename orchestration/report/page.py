"""One page with all that there is to say about a model: the hashed page of `benchmark_report`, its slots filled.

The figures stay as they were recorded. What is put around them is as it is now and belongs to no data version, so
that another machine, a later promotion or a sweep makes nothing stale.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from data_contracts.errors import InputError
from jobs.benchmark_report import PAGE_FILE
from jobs.pages.figures import Plot
from jobs.report.labels import MODES
from jobs.report.page import report_environment
from jobs.runner.layout import WHOLE_REPORT, StageAddress, output_folder
from jobs.runner.lineage import read_lineage
from jobs.runner.run import read_output
from jobs.runner.staleness import lineage_state
from jobs.runner.tracking import git_commit
from jobs.runner.whole_file import write_whole
from orchestration.report.champion import ChampionView, view_champion
from orchestration.report.plots import training_curves
from orchestration.report.provenance import Provenance, read_provenance
from orchestration.report.speed import SpeedRow, speed_rows
from orchestration.sweep import SweepPoint, draw, found_points

REPORT = StageAddress("benchmark_report")
SLOT = re.compile(r"<!-- slot: (\w+)(?: ([\w.-]+))? -->")
TRAINED = {
    "tokenizer_stage1": "Mask tokenizer, stage 1",
    "tokenizer_stage1_5": "Mask tokenizer, stage 1.5: length predictor",
    "altollm_sft": "ALToLLM, supervised fine-tuning",
    "altollm_grpo": "ALToLLM, GRPO",
}


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What fills the slots. curves: heading -> plot, None where the stage's curves are not here."""

    profile: str
    commit: str
    made_at: str
    champion: ChampionView
    curves: dict[str, Plot | None]
    sweep: list[SweepPoint]
    sweep_plot: Plot | None
    speed: list[SpeedRow]
    provenance: Provenance
    parameters: str


def write_report(root: Path, out: Path | None = None) -> Path:
    """Write the whole report and return where; by default reports/<profile>/report.html, which DVC does not track."""
    path = out or root / "reports" / read_lineage(root).profile / WHOLE_REPORT
    page = render_report(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)
    return path


def render_report(root: Path) -> str:
    """Raises InputError where there is no benchmark report yet."""
    lineage = read_lineage(root)
    states = lineage_state(root)
    if not any(state.address == REPORT and state.recorded for state in states):
        raise InputError("there is no benchmark report yet: run `dvc repro` first")
    page = read_output(root, lineage.profile, REPORT, PAGE_FILE)
    points = found_points(lineage)
    surroundings = Surroundings(
        profile=lineage.profile,
        commit=git_commit(root),
        made_at=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        champion=view_champion(lineage),
        curves={
            title: training_curves(root / output_folder(lineage.profile, StageAddress(stage)))
            for stage, title in TRAINED.items()
        },
        sweep=points,
        sweep_plot=draw(points) if points else None,
        speed=speed_rows(lineage),
        provenance=read_provenance(lineage, states),
        parameters=(root / "params.yaml").read_text(),
    )
    return fill(page, surroundings)


def fill(page: str, surroundings: Surroundings) -> str:
    """The page with its slots filled; a slot this version does not know stays empty."""
    template = report_environment("orchestration.report").get_template("slots.html.j2")
    macros = template.make_module({"around": surroundings, "modes": MODES})

    def filled(slot: re.Match[str]) -> str:
        name, argument = slot.groups()
        macro = getattr(macros, name, None)
        if macro is None:
            return ""
        return str(macro(argument) if argument else macro())

    return SLOT.sub(filled, page)
