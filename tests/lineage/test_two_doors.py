"""The smoke lineage, end to end through both doors: one state, the same versions."""

import base64
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from jobs.runner.layout import StageAddress
from tests.jobs.browser import needs_chromium, opened
from tests.jobs.runner.toy_project import assert_cache_is_sound
from tests.jobs.serving.model_server import ask, served
from tests.lineage.project import (
    copy_repository,
    data_versions,
    materialize_everything,
    plan,
    repro,
    run,
    set_parameter,
)

pytestmark = pytest.mark.lineage


@pytest.fixture(scope="module")
def built_by_dvc_and_by_dagster(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two clean copies, one built by `dvc repro` alone, one by Dagster alone."""
    folder = tmp_path_factory.mktemp("lineage")
    by_dvc, by_dagster = copy_repository(folder / "by_dvc"), copy_repository(folder / "by_dagster")
    failures: list[BaseException] = []

    def build(function, root: Path) -> None:
        try:
            function(root)
        except BaseException as error:
            failures.append(error)

    builds = [
        threading.Thread(target=build, args=(repro, by_dvc)),
        threading.Thread(target=build, args=(materialize_everything, by_dagster)),
    ]
    for thread in builds:
        thread.start()
    for thread in builds:
        thread.join()
    if failures:
        raise failures[0]
    return by_dvc, by_dagster


@pytest.fixture(scope="module")
def by_dvc(built_by_dvc_and_by_dagster: tuple[Path, Path]) -> Path:
    return built_by_dvc_and_by_dagster[0]


@pytest.fixture(scope="module")
def by_dagster(built_by_dvc_and_by_dagster: tuple[Path, Path]) -> Path:
    return built_by_dvc_and_by_dagster[1]


def dagster_state(root: Path) -> dict[str, list[str]]:
    """Address -> [data version, stale status], asked of Dagster in a fresh process."""
    return json.loads(run(root, "-m", "tests.lineage.dagster_state").stdout.splitlines()[-1])


def test_two_clean_builds_have_equal_data_versions(by_dvc: Path, by_dagster: Path) -> None:
    assert data_versions(by_dvc) == data_versions(by_dagster)
    assert len(data_versions(by_dvc)) == len(plan(by_dvc))


def test_after_dagster_dvc_repro_runs_nothing(by_dagster: Path) -> None:
    assert "up to date" in run(by_dagster, "-m", "dvc", "status").stdout
    assert repro(by_dagster) == []
    assert_cache_is_sound(by_dagster)


def test_after_dagster_every_asset_is_fresh(by_dagster: Path) -> None:
    versions = data_versions(by_dagster)
    assert dagster_state(by_dagster) == {address: [version, "FRESH"] for address, version in versions.items()}


def test_after_dvc_repro_dagster_shows_the_same_without_running(by_dvc: Path) -> None:
    run(by_dvc, "-m", "orchestration.cli", "sync")
    versions = data_versions(by_dvc)
    assert dagster_state(by_dvc) == {address: [version, "FRESH"] for address, version in versions.items()}
    assert set(plan(by_dvc).values()) == {"no"}
    again = run(by_dvc, "-m", "orchestration.cli", "sync").stdout
    assert "0 materializations reported" in again


def test_both_doors_show_the_same_pictures_figures_and_columns(by_dvc: Path, by_dagster: Path) -> None:
    run(by_dvc, "-m", "orchestration.cli", "sync")
    synced, materialized = (
        json.loads(run(root, "-m", "tests.lineage.shown").stdout.splitlines()[-1])
        for root in (by_dvc, by_dagster)
    )
    assert synced == materialized
    assert all(one["as declared"] for one in synced.values())  # the columns that the job has written
    illustrated = {
        StageAddress.parse(name).stage for name, one in synced.items() if "pictures" in one["metadata"]
    }
    plain = {"base_weights", "mask_tokens", "benchmark"}
    assert illustrated == {StageAddress.parse(name).stage for name in synced} - plain


def test_models_are_registered_once_as_challenger(by_dvc: Path) -> None:
    run(by_dvc, "-m", "orchestration.cli", "sync")
    again = run(by_dvc, "-m", "orchestration.cli", "sync").stdout
    assert "alto-tokenizer version 1 (already registered)" in again
    assert "altollm version 1 (already registered)" in again
    store = f"sqlite:///{by_dvc / '.work/mlflow/mlflow.db'}"
    version = MlflowClient(store, store).get_model_version_by_alias("altollm", "challenger")
    assert version.tags["contracts"] == "passed"
    assert version.tags["data_version.altollm_sft"] == data_versions(by_dvc)["altollm_sft"]
    assert float(version.tags["device_hours"]) > 0
    assert float(version.tags["hours"]) > 0
    assert version.tags["data_version"] == data_versions(by_dvc)["altollm_grpo"]
    assert version.tags["tokenizer_data_version"] == data_versions(by_dvc)["tokenizer_stage1_5"]
    assert version.tags["profile"] == "smoke"
    assert "git_commit" in version.tags  # empty in a copy without commits
    assert version.tags["parameters"] == f"runs:/{version.run_id}/params.yaml"
    assert 0 <= float(version.tags["metric.scenes.giou"]) <= 1
    measured = version.description.split("## Measured")[1].split("## Training")[0]
    assert "benchmark@scenes" in measured


def test_a_registered_version_is_served_and_answers_as_alto_segment(by_dvc: Path, tmp_path: Path) -> None:
    run(by_dvc, "-m", "orchestration.cli", "sync")
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((48, 64, 3), (200, 30, 30), np.uint8)).save(photo)
    command = ["-m", "orchestration.cli", "segment", str(photo), "--ref", "the red box", "--max-tokens", "3"]
    line = run(
        by_dvc, *command, "--model", "models:/altollm@challenger", "--out", str(tmp_path / "out")
    ).stdout
    with served(by_dvc, "models:/altollm@challenger", tmp_path / "server.log") as server:
        status, body = ask(server.address, photo.read_bytes(), ["the red box"], max_tokens=3)
        refused, why = ask(server.address, b"no image", ["the red box"])
    (answer,) = body["predictions"][0]["segmentations"]
    said = json.loads(line)
    assert status == 200
    assert {key: answer[key] for key in said.keys() & answer.keys()} == {
        key: said[key] for key in said.keys() & answer.keys()
    }
    assert {"codes", "score", "rle", "length"} <= said.keys() & answer.keys()
    mask = Image.open(io.BytesIO(base64.b64decode(answer["png"])))
    assert np.array_equal(np.asarray(mask), np.asarray(Image.open(tmp_path / "out" / said["mask_file"])))
    assert refused == 400
    assert "row 1: the image: not a whole JPEG or PNG file" in why["message"]


@needs_chromium
def test_the_whole_report_opens_from_disk_and_makes_nothing_stale(by_dvc: Path) -> None:
    before = data_versions(by_dvc)
    path = Path(run(by_dvc, "-m", "orchestration.cli", "report").stdout.splitlines()[-1])
    with opened(path) as shown:
        assert shown.broken_pictures() == []
        assert shown.requests == [path.as_uri()]
        assert shown.complaints == []
        assert shown.overflow() <= 0
        text = shown.page.inner_text("main")
        assert shown.page.locator("#training figure img").count() == 4
    for expected in ("The optional sweep has not run", "All of it is up to date", "prepare_sa1b@", "torch "):
        assert expected in text
    assert all(version.removesuffix(".dir")[:12] in text for version in before.values())
    assert data_versions(by_dvc) == before
    assert set(plan(by_dvc).values()) == {"no"}


def test_changed_grpo_parameter_makes_exactly_grpo_stale_in_both_doors(by_dvc: Path) -> None:
    run(by_dvc, "-m", "orchestration.cli", "sync")
    before = data_versions(by_dvc)
    set_parameter(by_dvc, "altollm_grpo", "temperature", 0.7)
    expected = dict.fromkeys(before, "no") | {
        "altollm_grpo": "runs",
        "benchmark@scenes": "if",
        "benchmark_report": "if",
    }
    assert plan(by_dvc) == expected
    run(by_dvc, "-m", "orchestration.cli", "sync")
    stale = {address for address, (_, status) in dagster_state(by_dvc).items() if status == "STALE"}
    assert stale == {"altollm_grpo"}

    ran = repro(by_dvc)
    after = data_versions(by_dvc)
    assert ran[0] == "altollm_grpo"
    changed = {address for address in before if before[address] != after[address]}
    followers = ["benchmark@scenes"] if "altollm_grpo" in changed else []
    followers += ["benchmark_report"] if "benchmark@scenes" in changed else []
    assert ran[1:] == followers


def test_a_sweep_runs_in_both_doors_for_the_weights_listed(by_dvc: Path) -> None:
    run(by_dvc, "-m", "orchestration.cli", "sync")
    registered = registered_versions(by_dvc)
    list_length_weights(by_dvc, ["0", "0.02"])
    assert repro(by_dvc, "grpo_sweep@0") == ["grpo_sweep@0"]
    run(by_dvc, "-m", "tests.lineage.materialize", "grpo_sweep@0.02")
    assert repro(by_dvc, "grpo_sweep@0.02") == []
    for weight in ("0", "0.02"):
        folder = by_dvc / "reports" / "smoke" / "grpo_sweep" / weight
        assert json.loads((folder / "report.json").read_text())["figures"]["length_weight"] == float(weight)
    assert registered_versions(by_dvc) == registered
    report = Path(run(by_dvc, "-m", "orchestration.cli", "report").stdout.splitlines()[-1]).read_text()
    assert "gIoU over mean length for 2 weights" in report
    assert plan(by_dvc)["benchmark_report"] == "no"


def registered_versions(root: Path) -> list[str]:
    lines = run(root, "-m", "orchestration.cli", "sync").stdout.splitlines()
    return [line for line in lines if "registered" in line]


def list_length_weights(root: Path, weights: list[str]) -> None:
    path = root / "partitions.yaml"
    partitions = yaml.safe_load(path.read_text())
    partitions["grpo_sweep"]["length_weights"] = weights
    path.write_text(yaml.safe_dump(partitions, sort_keys=False))
