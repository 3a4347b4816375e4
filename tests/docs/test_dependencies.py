"""docs/dependencies.md has a reason for every package that is asked for, and for no other."""

import re
import tomllib

from jobs.runner.layout import project_root

ROOT = project_root()
FIRST_CELL = re.compile(r"^\| ([^|]+) \|", re.MULTILINE)


def package(requirement: str) -> str:
    """Its name without version and extras, as `dvc-s3`."""
    return re.split(r"[\s\[<>=!~;]", requirement.strip())[0].lower().replace("_", "-")


def test_every_package_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    cells = FIRST_CELL.findall((ROOT / "docs" / "dependencies.md").read_text())
    explained = {package(name) for cell in cells for name in cell.split(",")} - {"package"}
    assert {package(requirement) for requirement in asked} == explained
