"""MLflow gets what a run did; MLflow being away stops nothing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.runner.context import Check, StageReport
from jobs.runner.job_spec import JobSpec
from jobs.runner.metric_log import MetricPoint
from jobs.runner.outbox import Outbox
from jobs.runner.run import keep_telemetry, read_last_run
from jobs.runner.tracking import end_open_run, flatten, outbox_of, send_kept, tracked_run
from tests.jobs.runner.specs import job_spec

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # so that what the job sets is taken back afterwards
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "dvc.yaml").touch()
    spec = job_spec(
        "tokenizer_stage1",
        tmp_path / "work",
        fingerprint="f" * 32,
        parameters={"steps": 3, "learning_rate": {"peak": 0.1}},
        input_hashes={"data/smoke/prepare_sa1b": "abc.dir", "jobs/x.py": "123", "params.yaml:seed": "7"},
    )
    spec.write()
    spec.staging.mkdir()
    return spec


def test_a_run_holds_parameters_curves_versions_and_results(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTO_DAGSTER_RUN_ID", "run-1")
    (spec.staging / "report.json").write_text("{}")
    (spec.staging / "pictures").mkdir()
    (spec.staging / "pictures" / "samples.png").write_bytes(b"a picture")
    report = StageReport(figures={"iou": 0.5}, checks=(Check(name="health", passed=False, reason="flat"),))
    with tracked_run(spec) as tracker:
        tracker.log_point(MetricPoint(1, {"loss": 2.0}))
    with tracked_run(spec) as tracker:  # the same job, resumed
        tracker.log_point(MetricPoint(2, {"loss": 1.0}))
        tracker.log_result(report, spec.staging)

    from mlflow import MlflowClient

    known = outbox_of(spec).run
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
    assert run.data.tags["environment.numpy"]
    assert [file.path for file in client.list_artifacts(known.run_id, "pictures")] == ["pictures/samples.png"]
    assert run.data.tags["dagster_run_id"] == "run-1"
    assert run.data.tags["data_version.data/smoke/prepare_sa1b"] == "abc.dir"
    assert "data_version.jobs/x.py" not in run.data.tags
    assert len(client.search_runs([known.experiment_id])) == 1


def test_without_a_server_the_job_goes_on(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run_whole(spec, loss=2.0)
    warning = capsys.readouterr().err
    assert warning.startswith(
        "warning: MLflow is not reachable, what the run has for it is kept and sent later"
    )
    assert len(warning.splitlines()) == 1
    assert not outbox_of(spec).is_sent


@pytest.fixture
def away(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is away for whole runs, and back in what follows."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")


def back(monkeypatch: pytest.MonkeyPatch, root: Path) -> "MlflowClient":
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    return MlflowClient()


def run_whole(spec: JobSpec, loss: float) -> None:
    spec.staging.mkdir(parents=True, exist_ok=True)
    (spec.staging / "report.json").write_text("{}")
    with tracked_run(spec) as tracker:
        tracker.log_point(MetricPoint(1, {"loss": loss}))
        tracker.log_result(StageReport(figures={"iou": 0.5, "device": "cpu"}), spec.staging)


@pytest.mark.usefixtures("away")
def test_what_could_not_be_sent_is_sent_later_once(
    spec: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec.model_copy(update={"work": tmp_path / ".work/tokenizer_stage1" / spec.fingerprint})
    run_whole(spec, loss=2.0)
    keep_telemetry(tmp_path, spec, "version", 1.0)
    run_whole(spec, loss=1.0)  # the next run of the stage does not overwrite it
    keep_telemetry(tmp_path, spec, "version", 1.0)
    assert read_last_run(tmp_path, spec.address).mlflow_run_id is None

    client = back(monkeypatch, tmp_path)
    assert send_kept(tmp_path) == ["tokenizer_stage1"] * 2
    assert send_kept(tmp_path) == []
    (experiment,) = [one for one in client.search_experiments() if one.name == "alto-smoke"]
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    assert sorted(run.data.metrics["loss"] for run in runs) == [1.0, 2.0]
    newest = client.get_run(read_last_run(tmp_path, spec.address).mlflow_run_id)
    assert newest.data.metrics == {"loss": 1.0, "iou": 0.5}
    assert newest.data.tags["device"] == "cpu"
    assert newest.data.params["learning_rate.peak"] == "0.1"
    assert [file.path for file in client.list_artifacts(newest.info.run_id)] == ["report.json"]


@pytest.mark.usefixtures("away")
def test_sending_that_was_cut_off_anywhere_goes_on_without_doubling(
    spec: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_whole(spec, loss=2.0)
    client = back(monkeypatch, tmp_path)
    outbox = outbox_of(spec)
    experiment = client.create_experiment("alto-smoke")
    whole = sum(1 for _ in outbox._batches(0))
    for sent in range(whole):
        answers = iter([None] * sent)  # then it is killed, before it has written down what is sent
        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "_write_sent", lambda *arguments, answers=answers: next(answers))
            with pytest.raises(StopIteration):
                outbox.send(client, experiment)
    outbox.send(client, experiment)
    assert outbox.is_sent
    (run,) = client.search_runs([experiment])
    assert [point.value for point in client.get_metric_history(run.info.run_id, "loss")] == [2.0]


def test_a_torn_entry_of_a_killed_job_is_passed_over(spec: JobSpec) -> None:
    outbox = outbox_of(spec)
    with tracked_run(spec) as tracker:
        tracker.log_point(MetricPoint(1, {"loss": 2.0}))
    with (outbox.folder / "entries.jsonl").open("a") as file:
        file.write('{"kind": "met')
    assert outbox.is_sent
    with tracked_run(spec) as tracker:
        tracker.log_point(MetricPoint(2, {"loss": 1.0}))
    from mlflow import MlflowClient

    assert outbox.run is not None
    history = MlflowClient().get_metric_history(outbox.run.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]


def test_the_run_of_a_killed_job_is_ended_by_who_watched_it(spec: JobSpec) -> None:
    from mlflow import MlflowClient

    outbox = outbox_of(spec)
    outbox.begin("smoke", "tokenizer_stage1", {}, {})
    outbox.add_point(1, {"loss": 2.0})
    with outbox.held():
        end_open_run(spec, "FAILED")  # the job still runs
    assert outbox.is_open
    end_open_run(spec, "FAILED")
    assert not outbox.is_open
    assert outbox.run is not None
    run = MlflowClient().get_run(outbox.run.run_id)
    assert (run.info.status, run.data.metrics["loss"]) == ("FAILED", 2.0)


def test_parameters_are_flattened_by_dots() -> None:
    assert flatten(json.loads('{"a": {"b": 1, "c": {"d": [2]}}, "e": null}')) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }
