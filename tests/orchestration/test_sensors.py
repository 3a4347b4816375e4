"""When the sensor that follows `dvc repro` looks at every stage."""

from pathlib import Path

import pytest

from orchestration.sensors import SECONDS_BETWEEN_FULL_LOOKS, state_of_files
from tests.lineage.project import ROOT

NOW = 10 * SECONDS_BETWEEN_FULL_LOOKS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of one stage with one code file."""
    for name in ("params.yaml", "partitions.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "code.py").write_text("x = 1\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  base_weights:\n    cmd: run\n    deps: [code.py]\n")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    return tmp_path


def test_nothing_changed(root: Path) -> None:
    assert state_of_files(root, NOW) == state_of_files(root, NOW + 30)


@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock", "params.yaml", "partitions.yaml", "code.py"])
def test_each_file_that_decides_is_looked_at(root: Path, name: str) -> None:
    before = state_of_files(root, NOW)
    with (root / name).open("a") as file:
        file.write("# more\n")
    assert state_of_files(root, NOW) != before


def test_what_files_do_not_show_is_seen_after_some_minutes(root: Path) -> None:
    assert state_of_files(root, NOW) != state_of_files(root, NOW + SECONDS_BETWEEN_FULL_LOOKS)
