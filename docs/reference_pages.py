"""Reference pages of the documentation, written from the code each time the site is built."""

import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import typer
from pydantic import BaseModel

from assets.drift import DriftConfig
from docs.figure_meanings import FIGURES, group_of
from jobs.runner.job_spec import Resources
from jobs.runner.layout import STAGES, parameter_section, project_root
from jobs.runner.lineage import Lineage, read_lineage
from jobs.runner.parameters import documented_parameters
from orchestration.alerts.settings import Alerts
from orchestration.automation.settings import Automation
from orchestration.housekeeping.settings import Retention
from orchestration.launching.kubernetes.settings import KubernetesSettings
from orchestration.launching.slurm.settings import SlurmSettings
from orchestration.launching.staged import StagingSettings
from orchestration.promotion.rules import PromotionRules

# Sections of params.yaml that no stage reads, so that changing one makes none stale.
OTHER_SECTIONS: dict[str, type[BaseModel]] = {
    "resources": Resources,
    "promotion": PromotionRules,
    "drift": DriftConfig,
}
# What a site sets up, by file.
SETTINGS: dict[str, type[BaseModel]] = {
    "infra/alerts.yaml": Alerts,
    "infra/automation.yaml": Automation,
    "infra/retention.yaml": Retention,
    "infra/slurm/settings.yaml": SlurmSettings,
    "infra/kubernetes/settings.yaml": KubernetesSettings,
    "infra/staging/settings.yaml": StagingSettings,
}
AUTOMATION_SENSOR = "Dagster's own: starts what the conditions of assets ask for."
METRIC_MODULES = (
    "alto_models.referring_scores",
    "alto_models.metrics",
    "alto_models.vqa_metrics",
    "jobs.benchmarking.results",
)


def write_reference(folder: Path) -> None:
    """One Markdown file a page."""
    from orchestration.cli import app
    from orchestration.definitions import defs

    pages = {
        "parameters": parameters_page(),
        "settings": settings_page(),
        "assets": assets_page(defs, read_lineage(project_root())),
        "checks": checks_page(defs),
        "automation": automation_page(defs),
        "commands": commands_page(typer.main.get_command(app)),
        "metrics": metrics_page(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def parameters_page() -> str:
    lines = [
        "# Parameters",
        "",
        "Sections of `params.yaml`. A nested section follows the line that names it; `<name>` is a key of your own,",
        "`[]` an entry of a list.",
        "A change in the section of a stage makes that stage stale; the last sections make none stale. Besides,",
        "`seed` (of all random choices) is an input of every stage, and `profile` names the folders of outputs.",
    ]
    for stage in STAGES:
        section = parameter_section(stage)
        title = stage + ("" if section == stage else f" (section `{section}`)")
        lines += section_of(title, importlib.import_module(f"jobs.{stage}").Config)
    for name, config_class in OTHER_SECTIONS.items():
        lines += section_of(name, config_class)
    return text_of(lines)


def settings_page() -> str:
    lines = [
        "# Settings of a site",
        "",
        "Files in `infra/`. No stage reads them, so changing one makes none stale.",
    ]
    for file, config_class in SETTINGS.items():
        lines += section_of(file, config_class)
    return text_of(lines)


def section_of(title: str, config_class: type[BaseModel]) -> list[str]:
    rows = [
        (f"`{one.path}`", one.meaning, one.type, "must be given" if one.default is None else one.default)
        for one in documented_parameters(config_class)
    ]
    return ["", f"## {title}", "", *table(("name", "meaning", "type", "default"), rows)]


def assets_page(definitions: dg.Definitions, lineage: Lineage) -> str:
    graph = definitions.resolve_asset_graph()
    partitions = {stage.name: stage.partition_set for stage in lineage.stages}
    lines = [
        "# Assets",
        "",
        "In the order of the lineage. Each but the last two is a stage of `dvc.yaml`, too.",
    ]
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        if not node.is_materializable:
            continue
        checks = sorted(check.name for check in node.check_keys)
        rows = [
            ("group", node.group_name),
            ("reads", listed(sorted(parent.to_user_string() for parent in node.parent_keys))),
            ("partitions", partitions.get(key.to_user_string()) or "none"),
            ("checks", listed(checks)),
            ("pool", listed(sorted(node.pools or ()))),
        ]
        lines += ["", f"## {key.to_user_string()}", "", node.description or "", "", *table(("", ""), rows)]
    return text_of(lines)


def checks_page(definitions: dg.Definitions) -> str:
    graph = definitions.resolve_asset_graph()
    rows = [
        (
            f"`{key.name}`",
            key.asset_key.to_user_string(),
            check.description,
            "yes" if check.blocking else "no",
        )
        for key, check in sorted(
            ((node.key, node) for node in graph.asset_check_nodes),
            key=lambda pair: (pair[0].name, pair[0].asset_key.to_user_string()),
        )
    ]
    head = ["# Checks", "", "A blocking check that fails stops everything that follows, in both doors.", ""]
    return text_of([*head, *table(("check", "of", "says", "blocking"), rows)])


def automation_page(definitions: dg.Definitions) -> str:
    repository = definitions.get_repository_def()
    jobs = [
        (f"`{job.name}`", job.description)
        for job in sorted(repository.get_all_jobs(), key=lambda job: job.name)
        if not job.name.startswith("__")
    ]
    schedules = [
        (f"`{one.name}`", f"`{one.cron_schedule}` {one.execution_timezone or 'UTC'}", one.description)
        for one in sorted(repository.schedule_defs, key=lambda one: one.name)
    ]
    sensors = [
        (f"`{one.name}`", f"{one.minimum_interval_seconds} s", one.description or AUTOMATION_SENSOR)
        for one in sorted(repository.sensor_defs, key=lambda one: one.name)
    ]
    lines = ["# Jobs, schedules and sensors", "", "## Jobs", "", *table(("job", "does"), jobs)]
    lines += ["", "## Schedules", "", *table(("schedule", "when", "does"), schedules)]
    return text_of(
        [*lines, "", "## Sensors", "", *table(("sensor", "looks at least every", "does"), sensors)]
    )


def commands_page(alto: Any) -> str:
    lines = [
        "# Commands",
        "",
        "`alto COMMAND --help` says the same. `python -m jobs.<stage> --help` lists a stage's",
    ]
    lines += ["parameters, `python -m tests.benchmarks.<name> --help` the options of a benchmark."]
    for path, command in sorted(leaves(alto, ("alto",))):
        rows = []
        words = [*path]
        for parameter in command.params:
            names = [*parameter.opts, *parameter.secondary_opts]
            if parameter.param_type_name == "argument":
                names = [parameter.name.upper()]
                words += names
            default = (
                parameter.default
                if isinstance(parameter.default, str | int | float) and parameter.default is not False
                else ""
            )
            rows.append((listed(names), getattr(parameter, "help", ""), str(default)))
        lines += ["", f"## {' '.join(path)}", "", f"`{' '.join([*words, '[OPTIONS]'])}`", ""]
        lines += [inspect.cleandoc(command.help or ""), "", *table(("", "meaning", "default"), rows)]
    return text_of(lines)


def metrics_page() -> str:
    lines = [
        "# Metrics",
        "",
        "First the figures of the stages' reports, which Dagster and MLflow show; then what the code says of each",
        "definition, and where it comes from. Of language models, `start` and `before` are figures before training,",
        "`full` and `adaptive` those after it by the sort of prompt, `after` those with adaptive prompts.",
    ]
    for beginning, figures in FIGURES.items():
        of = ", ".join(f"`{stage}`" for stage in STAGES if group_of(stage) == beginning)
        lines += ["", f"## Figures of {of}", "", *table(("figure", "meaning"), figure_rows(figures))]
    for name in METRIC_MODULES:
        module = importlib.import_module(name)
        lines += ["", f"## {name}", "", inspect.cleandoc(module.__doc__ or "")]
        for member_name, member in vars(module).items():
            own = getattr(member, "__module__", None) == name and not member_name.startswith("_")
            if own and (inspect.isfunction(member) or inspect.isclass(member)) and member.__doc__:
                lines += ["", f"### {member_name}", "", inspect.cleandoc(member.__doc__)]
    return text_of(lines)


def figure_rows(figures: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for name, meaning in figures.items():
        yield f"`{name.replace('.+', '<name>').replace('[A-Za-z0-9_]+', '<split>')}`", meaning


def leaves(command: Any, path: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], Any]]:
    """The commands that do something, with the words that call them."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from leaves(below, (*path, name))


def listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def table(head: Sequence[str], rows: Iterable[Sequence[str | None]]) -> list[str]:
    """A Markdown table; what would end a cell is escaped."""
    cells = [[" ".join((cell or "").split()).replace("|", "\\|") for cell in row] for row in rows]
    if not cells:
        return ["None."]
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]


def text_of(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
