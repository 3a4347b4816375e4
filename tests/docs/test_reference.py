"""The reference pages leave nothing out: every parameter, setting, command, check and figure says what it means."""

from collections.abc import Iterator

import pytest
import typer

from docs.reference_pages import OTHER_SECTIONS, SETTINGS, leaves
from jobs.runner.layout import STAGES, parameter_section, project_root
from jobs.runner.lineage import read_yaml
from jobs.runner.parameters import documented_parameters
from orchestration.cli import app
from orchestration.definitions import defs

ROOT = project_root()
OF_DAGSTER = {"default_automation_condition_sensor"}
NO_SETTINGS = {"compose.yaml", "compose.gpu.yaml"}  # other programs' own formats


def test_every_section_of_the_parameters_is_documented() -> None:
    sections = {parameter_section(stage) for stage in STAGES} | set(OTHER_SECTIONS)
    assert set(read_yaml(ROOT / "infra/profiles/base.yaml")) == sections | {"profile", "seed"}


def test_every_settings_file_of_a_site_is_documented() -> None:
    files = {*(ROOT / "infra").glob("*.yaml"), *(ROOT / "infra").glob("*/settings.yaml")}
    assert {path.relative_to(ROOT).as_posix() for path in files if path.name not in NO_SETTINGS} == set(
        SETTINGS
    )


@pytest.mark.parametrize("name", [*OTHER_SECTIONS, *SETTINGS])
def test_every_setting_has_a_meaning(name: str) -> None:
    model = (OTHER_SECTIONS | SETTINGS)[name]
    assert [one.path for one in documented_parameters(model) if not one.meaning] == []


def without_words() -> Iterator[str]:
    graph = defs.resolve_asset_graph()
    for asset in graph.asset_nodes:
        if asset.is_materializable and not asset.description:
            yield f"asset {asset.key.to_user_string()}"
    for check in graph.asset_check_nodes:
        if not check.description:
            yield f"check {check.key}"
    repository = defs.get_repository_def()
    for kind in (repository.get_all_jobs(), repository.sensor_defs, repository.schedule_defs):
        for one in kind:
            if not one.description and one.name not in OF_DAGSTER and not one.name.startswith("__"):
                yield one.name
    for path, command in leaves(typer.main.get_command(app), ("alto",)):
        if not command.help:
            yield " ".join(path)
        for parameter in command.params:
            if not getattr(parameter, "help", None):
                yield f"{' '.join(path)} {parameter.name}"


def test_every_asset_check_job_sensor_and_option_says_what_it_does() -> None:
    assert list(without_words()) == []
