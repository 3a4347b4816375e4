"""MLflow records of training and evaluation runs. MLflow being away stops no job, and loses nothing of what it did."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data_contracts.errors import JobStopped, first_line
from jobs.runner.context import StageReport
from jobs.runner.environment import current_environment
from jobs.runner.experiments import lasting_root
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import MODEL_STAGES, REPORT_STAGES, project_root
from jobs.runner.metric_log import MetricPoint
from jobs.runner.outbox import Outbox, RunStatus

TRACKED_STAGES = frozenset(MODEL_STAGES + REPORT_STAGES) - {"base_weights"}
SECONDS_BETWEEN_SENDING, MOST_SECONDS_BETWEEN_SENDING = 5.0, 60.0  # the latter while MLflow is away
OUTBOX = "mlflow"
EXPERIMENT_TAG = "experiment"  # of runs that a DVC experiment made: its name
SENT_ELSEWHERE = "ALTO_MLFLOW_SENT_ELSEWHERE"  # set for a job whose outbox is sent when it has come back
UNSENT = Path(".work", "mlflow_unsent")  # of jobs that another one has replaced


class Tracker(Protocol):
    def log_point(self, point: MetricPoint) -> None: ...
    def log_result(self, report: StageReport, output: Path) -> None: ...


class NoTracker:
    def log_point(self, point: MetricPoint) -> None:
        pass

    def log_result(self, report: StageReport, output: Path) -> None:
        pass


def outbox_of(spec: JobSpec) -> Outbox:
    return Outbox(spec.state / OUTBOX)


def use_project_store(root: Path) -> None:
    """Point MLflow at the embedded store (sqlite and a folder in `.work/mlflow`) unless one is configured."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
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
    here = project_root()
    root = lasting_root(here)
    outbox = outbox_of(spec)
    outbox.begin(spec.profile, str(spec.address), run_tags(spec, here), flatten(spec.parameters))
    with outbox.held():
        sender = Sender(outbox, root)
        try:
            yield MlflowTracker(outbox)
        except BaseException as error:
            outbox.set_status("KILLED" if isinstance(error, JobStopped) else "FAILED")
            raise
        else:
            outbox.set_status("FINISHED")
        finally:
            sender.close()
            keep_beyond_copy(outbox, here)


@dataclass(frozen=True)
class MlflowTracker:
    outbox: Outbox

    def log_point(self, point: MetricPoint) -> None:
        self.outbox.add_point(point.step, point.values)

    def log_result(self, report: StageReport, output: Path) -> None:
        """Key figures, checks and pictures of the finished output."""
        texts = {name: value for name, value in report.figures.items() if isinstance(value, str)}
        verdicts = {
            f"check.{check.name}": "passed" if check.passed else check.reason for check in report.checks
        }
        self.outbox.add_tags(texts | verdicts)
        self.outbox.add_point(
            0, {name: value for name, value in report.figures.items() if not isinstance(value, str)}
        )
        pictures = sorted((output / "pictures").glob("*"))
        self.outbox.add_artifacts(
            {path.relative_to(output).as_posix(): path for path in (output / "report.json", *pictures)}
        )


class Sender:
    """Sends an outbox from a background thread, so that a slow server does not slow the training step."""

    def __init__(self, outbox: Outbox, root: Path) -> None:
        import mlflow  # noqa: F401  before the thread: what the job imports meanwhile may be part of it

        self._outbox = outbox
        self._root = root
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_until_stopped, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send the rest, and what earlier runs could not; what MLflow does not take now is kept."""
        self._stop.set()
        self._thread.join()
        try:
            send(self._outbox, self._root)
            send_kept(self._root)
        except Exception as error:  # whatever the server or its client raises
            warn(error)

    def _send_until_stopped(self) -> None:
        wait = SECONDS_BETWEEN_SENDING
        while not self._stop.wait(wait):
            try:
                send(self._outbox, self._root)
            except Exception:  # tried again; `close` says what stays unsent
                wait = min(2 * wait, MOST_SECONDS_BETWEEN_SENDING)
            else:
                wait = SECONDS_BETWEEN_SENDING


def send(outbox: Outbox, root: Path) -> None:
    """Raises whatever MLflow's client raises."""
    if outbox.is_sent or SENT_ELSEWHERE in os.environ:
        return
    use_project_store(root)
    from mlflow import MlflowClient

    client = MlflowClient()
    outbox.send(client, find_or_create_experiment(client, outbox.profile, root))


def send_kept(root: Path) -> list[str]:
    """Send what earlier jobs could not; those that still run send their own. Returns the names of their runs.

    Raises whatever MLflow's client raises.
    """
    sent = []
    work = root / ".work"
    # Of a stage or one partition, in the state of a job or beside what its last run left.
    places = [f"*/{deeper}{place}/{OUTBOX}" for deeper in ("", "*/") for place in ("last_run", "*/state")]
    for folder in [*(root / UNSENT).glob("*"), *(folder for place in places for folder in work.glob(place))]:
        outbox = Outbox(folder)
        with outbox.held() as free:
            if not free or outbox.is_sent:
                continue
            send(outbox, root)
            sent.append(outbox.name)
            if folder.parent == root / UNSENT:
                shutil.rmtree(folder)
    return sent


def keep_unsent(outbox: Outbox, root: Path) -> None:
    """Before its folder is removed."""
    if not outbox.is_sent:
        (root / UNSENT).mkdir(parents=True, exist_ok=True)
        outbox.folder.rename(root / UNSENT / outbox.key)


def keep_beyond_copy(outbox: Outbox, here: Path) -> None:
    """Keep what is not sent, where the job ran in a copy of the project for one experiment."""
    root = lasting_root(here)
    if root != here:
        keep_unsent(outbox, root)


def end_open_run(spec: JobSpec, status: RunStatus) -> None:
    """Say how a run ended whose job could not, because it was killed. One that still runs holds its outbox."""
    outbox = outbox_of(spec)
    if not outbox.is_open:
        return
    here = project_root()
    with outbox.held() as free:
        if free:
            outbox.set_status(status)
            with suppress(Exception):  # it is kept, and sent by a later run
                send(outbox, lasting_root(here))
            keep_beyond_copy(outbox, here)


def experiment_name(profile: str) -> str:
    """Of MLflow's experiment that holds all runs of a profile."""
    return f"alto-{profile}"


def find_or_create_experiment(client: Any, profile: str, root: Path) -> str:
    from mlflow.exceptions import MlflowException

    name = experiment_name(profile)
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
    if spec.experiment is not None:
        tags |= {EXPERIMENT_TAG: spec.experiment.name, "baseline_commit": spec.experiment.baseline}
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
    print(f"warning: {trouble(error, 'what the run has for it is kept and sent later')}", file=sys.stderr)


def trouble(error: Exception, consequence: str) -> str:
    """What MLflow's client raised, and what follows from it, in one line."""
    refusals = {
        "UNAUTHENTICATED": "refuses MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        "PERMISSION_DENIED": "does not let its user MLFLOW_TRACKING_USERNAME do this",
    }
    refused = refusals.get(getattr(error, "error_code", ""))
    if refused:
        return f"MLflow {refused}, {consequence}"
    return f"MLflow is not reachable, {consequence} ({first_line(error)})"
