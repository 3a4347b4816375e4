"""The check `drift`: prepared data against what the champion was trained on."""

import json
from pathlib import Path

import pytest

from assets.drift import CHAMPION_DATA_FILE, champion_data, drift_check, with_drift
from data_contracts.statistics import DataStatistics, Distribution
from jobs.runner.layout import StageAddress
from jobs.runner.lineage import Lineage

BATCH = StageAddress("prepare_sa1b", "batch_000")
PARAMS = "drift: {distributions: 0.25, shares: 0.05, categories: 0.1}\n"


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "infra").mkdir()
    write_statistics(tmp_path, 10.0)
    return Lineage(root=tmp_path, profile="small", stages=())


def write_statistics(root: Path, mean: float) -> None:
    folder = root / "data/small/prepare_sa1b/batch_000"
    folder.mkdir(parents=True, exist_ok=True)
    distribution = Distribution(count=3, mean=mean, quantiles={"q50": mean})
    statistics = DataStatistics(distributions={"boundary_length": distribution}, shares={}, categories={})
    (folder / "statistics.json").write_text(statistics.model_dump_json())


def pin(lineage: Lineage) -> None:
    (lineage.root / CHAMPION_DATA_FILE).write_text(champion_data(lineage, {BATCH: "abc"}))


def test_without_a_champion_it_passes_and_says_so(lineage: Lineage) -> None:
    check = drift_check(lineage, BATCH)
    assert check["passed"]
    assert "no champion" in check["reason"]


def test_a_change_beyond_the_limit_says_old_new_and_limit(lineage: Lineage) -> None:
    pin(lineage)
    assert drift_check(lineage, BATCH)["passed"]
    write_statistics(lineage.root, 14.0)
    check = drift_check(lineage, BATCH)
    assert not check["passed"]
    assert not check["blocking"]
    assert "boundary_length mean 10 → 14 (change 0.4, limit 0.25)" in check["reason"]
    assert "version abc" in check["reason"]
    assert check["details"]["figures"][0] == {
        "figure": "boundary_length mean",
        "old": "10",
        "new": "14",
        "change": "0.4",
        "limit": "0.25",
        "within": False,
    }


def test_what_the_champion_does_not_know_is_not_compared(lineage: Lineage) -> None:
    pin(lineage)
    other = StageAddress("prepare_sa1b", "batch_001")
    folder = lineage.root / "data/small/prepare_sa1b"
    (folder / "batch_001").mkdir()
    (folder / "batch_001/statistics.json").write_text((folder / "batch_000/statistics.json").read_text())
    assert "not trained on this partition" in drift_check(lineage, other)["reason"]
    elsewhere = Lineage(root=lineage.root, profile="paper", stages=())
    assert "under profile small" in drift_check(elsewhere, BATCH)["reason"]
    (folder / "batch_000/statistics.json").unlink()
    assert drift_check(lineage, BATCH)["passed"]


def test_a_rejected_result_is_compared_where_it_lies(lineage: Lineage) -> None:
    pin(lineage)
    rejected = lineage.root / "rejected"
    (lineage.root / "data/small/prepare_sa1b/batch_000").rename(rejected)
    (check,) = with_drift(lineage, BATCH, {"checks": []}, rejected)["checks"]
    assert check["passed"]
    assert check["reason"].endswith("of version abc, which the champion was trained on")


def test_only_training_data_is_compared(lineage: Lineage) -> None:
    report = {"figures": {}, "checks": []}
    assert [check["name"] for check in with_drift(lineage, BATCH, report)["checks"]] == ["drift"]
    assert with_drift(lineage, StageAddress("prepare_benchmark", "scenes"), report) == report


@pytest.mark.parametrize(
    "file", [CHAMPION_DATA_FILE, Path("data/small/prepare_sa1b/batch_000/statistics.json")]
)
def test_a_damaged_file_fails_the_check_alone(lineage: Lineage, file: Path) -> None:
    pin(lineage)
    (lineage.root / file).write_text(json.dumps({"profile": "small"}))
    check = drift_check(lineage, BATCH)
    assert not check["passed"]
    assert f"{file}: " in check["reason"]


def test_limits_that_are_missing_fail_the_check_alone(lineage: Lineage) -> None:
    pin(lineage)
    (lineage.root / "params.yaml").write_text("profile: small\n")
    assert "params.yaml: drift.distributions" in drift_check(lineage, BATCH)["reason"]
