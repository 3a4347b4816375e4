"""The curve of `grpo_sweep`, read from the reports of its runs."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from data_contracts.errors import InputError
from orchestration.cli import app
from orchestration.sweep import draw, read_points

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two of three listed weights have run."""
    partitions = yaml.safe_load((ROOT / "partitions.yaml").read_text())
    partitions["grpo_sweep"]["length_weights"] = ["0.02", "0", "0.1"]
    (tmp_path / "partitions.yaml").write_text(yaml.safe_dump(partitions))
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    for weight, giou, length in (("0.02", 0.61, 6.5), ("0", 0.63, 11.0)):
        folder = tmp_path / "reports/small/grpo_sweep" / weight
        folder.mkdir(parents=True)
        figures = {
            "length_weight": float(weight),
            "before_giou": 0.6,
            "before_mean_length": 12.0,
            "after_giou": giou,
            "after_mean_length": length,
        }
        (folder / "report.json").write_text(json.dumps({"figures": figures, "checks": []}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_curve_goes_from_the_smallest_weight_to_the_largest_that_has_run(project: Path) -> None:
    points = read_points(project)
    assert [(point.length_weight, point.giou, point.mean_length) for point in points] == [
        (0.0, 0.63, 11.0),
        (0.02, 0.61, 6.5),
    ]
    assert draw(points).svg == draw(points).svg
    assert "2 weights" in draw(points).alt


def test_the_command_draws_a_new_file_and_prints_the_points(project: Path) -> None:
    done = CliRunner().invoke(app, ["sweep", "curve.png"])
    assert done.exit_code == 0, done.output
    assert (project / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert done.output.splitlines()[1].split() == ["0", "0.6300", "11.00"]
    again = CliRunner().invoke(app, ["sweep", "curve.png"])
    assert isinstance(again.exception, InputError)


def test_without_a_run_it_says_how_to_get_one(project: Path) -> None:
    (project / "partitions.yaml").write_text((ROOT / "partitions.yaml").read_text())
    with pytest.raises(InputError, match="length_weights in partitions.yaml"):
        read_points(project)
