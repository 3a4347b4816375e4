"""The documentation builds as a site, and says what the code says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.runner.layout import STAGES, project_root
from orchestration.definitions import defs

ROOT = project_root()
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with warnings as errors: a link that leads nowhere or a page in no list is one."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_reference_holds_every_stage_check_and_sensor(site: Path) -> None:
    parameters, assets, checks, automation, commands = (
        (site / "reference" / f"{name}.html").read_text()
        for name in ("parameters", "assets", "checks", "automation", "commands")
    )
    for stage in STAGES:
        assert f">{stage}" in parameters
        assert f">{stage}" in assets
    for key in defs.resolve_asset_graph().asset_check_keys:
        assert f">{key.name}<" in checks
    for sensor in defs.get_repository_def().sensor_defs:
        assert f">{sensor.name}<" in automation
    assert ">alto promote<" in commands
    assert "--rollback" in commands


@pytest.mark.slow
def test_no_page_of_the_site_is_missing(site: Path) -> None:
    assert [page.name for page in PAGES if not (site / page.with_suffix(".html").name).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_files_that_a_page_links_to_are_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    generated = ROOT / "docs" / "reference"
    missing = [link for link in links if not (page.parent / link).exists()]
    assert [link for link in missing if generated not in (page.parent / link).parents] == []
