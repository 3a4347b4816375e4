"""MLflow gets what a run did; MLflow being away stops nothing."""

import json
from pathlib import Path

import pytest

from jobs.runner.context import Check, StageReport
from jobs.runner.job_spec import JobSpec
from jobs.runner.metric_log import MetricPoint
from jobs.runner.tracking import flatten, read_run, tracked_run


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # so that what the job sets is taken back afterwards
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "dvc.yaml").touch()
    spec = JobSpec(
        stage="tokenizer_stage1",
        partition=None,
        partition_items=(),
        profile="smoke",
        fingerprint="f" * 32,
        parameters={"steps": 3, "learning_rate": {"peak": 0.1}},
        seed=7,
        processes=1,
        inputs={},
        input_hashes={"data/smoke/prepare_sa1b": "abc.dir", "jobs/x.py": "123", "params.yaml:seed": "7"},
        work=tmp_path / "work",
    )
    spec.write()
    spec.staging.mkdir()
    return spec


def test_a_run_holds_parameters_curves_versions_and_results(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTO_DAGSTER_RUN_ID", "run-1")
    (spec.staging / "report.json").write_text("{}")
    report = StageReport(figures={"iou": 0.5}, checks=(Check(name="health", passed=False, reason="flat"),))
    with tracked_run(spec) as tracker:
        tracker.log_point(MetricPoint(1, {"loss": 2.0}))
    with tracked_run(spec) as tracker:  # the same job, resumed
        tracker.log_point(MetricPoint(2, {"loss": 1.0}))
        tracker.log_result(report, spec.staging)

    from mlflow import MlflowClient

    known = read_run(spec.work)
    assert known is not None
    client = MlflowClient()
    run = client.get_run(known.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"steps": "3", "learning_rate.peak": "0.1"}
    assert [(m.step, m.value) for m in client.get_metric_history(known.run_id, "loss")] == [
        (1, 2.0),
        (2, 1.0),
    ]
    assert run.data.metrics["iou"] == 0.5
    assert run.data.tags["check.health"] == "flat"
    assert run.data.tags["dagster_run_id"] == "run-1"
    assert run.data.tags["data_version.data/smoke/prepare_sa1b"] == "abc.dir"
    assert "data_version.jobs/x.py" not in run.data.tags
    assert len(client.search_runs([known.experiment_id])) == 1


def test_without_a_server_the_job_goes_on(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with tracked_run(spec) as tracker:
        tracker.log_point(MetricPoint(1, {"loss": 2.0}))
        tracker.log_result(StageReport(figures={}), spec.staging)
    warning = capsys.readouterr().err
    assert warning.startswith("warning: MLflow is not reachable, the run goes on without it")
    assert len(warning.splitlines()) == 1


def test_parameters_are_flattened_by_dots() -> None:
    assert flatten(json.loads('{"a": {"b": 1, "c": {"d": [2]}}, "e": null}')) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }
