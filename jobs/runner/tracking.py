"""MLflow records of training and evaluation runs. MLflow being away never stops a job: it warns and goes on."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from data_contracts.errors import first_line
from jobs.runner.context import StageReport
from jobs.runner.environment import current_environment
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import MODEL_STAGES, REPORT_STAGES, project_root
from jobs.runner.metric_log import MetricPoint

TRACKED_STAGES = frozenset(MODEL_STAGES + REPORT_STAGES) - {"base_weights"}
SECONDS_BETWEEN_FLUSHES = 5.0
RUN_FILE = "mlflow_run.json"
METRICS_PER_REQUEST = 1000  # the limit of MLflow's log-batch request


class MlflowRun(NamedTuple):
    experiment_id: str
    run_id: str


class Tracker(Protocol):
    def log_point(self, point: MetricPoint) -> None: ...
    def log_result(self, report: StageReport, output: Path) -> None: ...


class NoTracker:
    def log_point(self, point: MetricPoint) -> None:
        pass

    def log_result(self, report: StageReport, output: Path) -> None:
        pass


def read_run(work: Path) -> MlflowRun | None:
    """The MLflow run that a job started from this work folder logs to."""
    path = work / RUN_FILE
    return MlflowRun(**json.loads(path.read_text())) if path.exists() else None


def use_project_store(root: Path) -> None:
    """Point MLflow at the embedded store (sqlite and a folder in `.work/mlflow`) unless one is configured."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    if "MLFLOW_TRACKING_URI" not in os.environ:
        store = root / ".work" / "mlflow"
        store.mkdir(parents=True, exist_ok=True)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store / 'mlflow.db'}"


@contextmanager
def tracked_run(spec: JobSpec) -> Iterator[Tracker]:
    """An MLflow run for stages worth one; a resumed job goes on in the run it had."""
    if spec.stage not in TRACKED_STAGES:
        yield NoTracker()
        return
    try:
        tracker = MlflowTracker(spec)
    except Exception as error:  # whatever the server or its client raises
        warn(error)
        yield NoTracker()
        return
    try:
        yield tracker
    except BaseException:
        tracker.close("FAILED")
        raise
    tracker.close("FINISHED")


class MlflowTracker:
    """Sends curves from a background thread, so that a slow server does not slow the training step."""

    def __init__(self, spec: JobSpec) -> None:
        root = project_root()
        use_project_store(root)
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self._run_id = self._find_or_create_run(spec, root)
        self._pending: list[MetricPoint] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._flush_until_stopped, daemon=True)
        self._thread.start()

    def _find_or_create_run(self, spec: JobSpec, root: Path) -> str:
        if (known := read_run(spec.work)) is not None:
            self._client.update_run(known.run_id, status="RUNNING")
            return known.run_id
        run = self._client.create_run(
            find_or_create_experiment(self._client, spec.profile, root),
            run_name=str(spec.address),
            tags=run_tags(spec, root),
        )
        for name, value in flatten(spec.parameters).items():
            self._client.log_param(run.info.run_id, name, value)
        path = spec.work / RUN_FILE
        path.write_text(json.dumps(MlflowRun(run.info.experiment_id, run.info.run_id)._asdict()))
        return run.info.run_id

    def log_point(self, point: MetricPoint) -> None:
        with self._lock:
            self._pending.append(point)

    def log_result(self, report: StageReport, output: Path) -> None:
        """Key figures, checks and pictures of the finished output."""
        try:
            for name, value in report.figures.items():
                if isinstance(value, str):
                    self._client.set_tag(self._run_id, name, value)
                else:
                    self._client.log_metric(self._run_id, name, value)
            for check in report.checks:
                self._client.set_tag(
                    self._run_id, f"check.{check.name}", "passed" if check.passed else check.reason
                )
            self._client.log_artifact(self._run_id, str(output / "report.json"))
            if (output / "pictures").is_dir():
                self._client.log_artifacts(self._run_id, str(output / "pictures"), "pictures")
        except Exception as error:
            warn(error)

    def close(self, status: str) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self._flush()
            self._client.set_terminated(self._run_id, status)
        except Exception as error:
            warn(error)

    def _flush_until_stopped(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_FLUSHES):
            try:
                self._flush()
            except Exception:  # tried again with the next flush; `close` reports what stays unsent
                continue

    def _flush(self) -> None:
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        with self._lock:
            points, self._pending = self._pending, []
        now = get_current_time_millis()
        metrics = [
            Metric(name, value, now, point.step) for point in points for name, value in point.values.items()
        ]
        try:
            for start in range(0, len(metrics), METRICS_PER_REQUEST):
                self._client.log_batch(self._run_id, metrics=metrics[start : start + METRICS_PER_REQUEST])
        except Exception:
            with self._lock:
                self._pending = points + self._pending
            raise


def find_or_create_experiment(client: Any, profile: str, root: Path) -> str:
    from mlflow.exceptions import MlflowException

    name = f"alto-{profile}"
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    artifacts = None
    if os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite:"):
        artifacts = (root / ".work" / "mlflow" / "artifacts").as_uri()
    try:
        return client.create_experiment(name, artifact_location=artifacts)
    except MlflowException:  # another job was first
        return client.get_experiment_by_name(name).experiment_id


def run_tags(spec: JobSpec, root: Path) -> dict[str, str]:
    tags = {
        "stage": spec.stage,
        "profile": spec.profile,
        "fingerprint": spec.fingerprint,
        "git_commit": git_commit(root),
        "dagster_run_id": os.environ.get("ALTO_DAGSTER_RUN_ID", ""),
        "door": "dagster" if "ALTO_DAGSTER_RUN_ID" in os.environ else "dvc",
        **current_environment().tags(),
    }
    versions = {
        f"data_version.{path}": value for path, value in spec.input_hashes.items() if not path.endswith(".py")
    }
    return tags | {name: value for name, value in versions.items() if ":" not in name}


def git_commit(root: Path) -> str:
    """Commit of the code, with `-dirty` where tracked files differ from it; empty outside git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip()


def flatten(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def warn(error: Exception) -> None:
    print(
        f"warning: MLflow is not reachable, the run goes on without it ({first_line(error)})", file=sys.stderr
    )
