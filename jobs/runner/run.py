"""Run one stage and record it: what both doors call."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_contracts.errors import InputError
from jobs.runner.changes import code_versions
from jobs.runner.environment import ENVIRONMENT_FILE
from jobs.runner.global_batch import refuse_uneven_batch
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress, output_folder, stage_of_path
from jobs.runner.ledger import Ledger, Recorded
from jobs.runner.outbox import Outbox
from jobs.runner.stage_lock import StageLock
from jobs.runner.tracking import OUTBOX, end_open_run, git_commit, keep_unsent, outbox_of
from jobs.runner.verdict import is_finished

Launch = Callable[[JobSpec, StageLock], None]
# What a job may leave in its state: never hashed.
TELEMETRY = ("metrics.jsonl", "data_docs", "speed.json", ENVIRONMENT_FILE, OUTBOX)


@dataclass(frozen=True, kw_only=True)
class LastRun:
    """Telemetry of the newest run of an address; kept beside the outputs' records, never hashed.

    processes: that the job ran in, each on a device of its own where there are several.
    inputs: address of each upstream output -> data version that was read. code: file -> MD5, of the declared code.
    """

    fingerprint: str
    data_version: str
    git_commit: str
    mlflow_experiment_id: str | None
    mlflow_run_id: str | None
    seconds: float
    finished_at: float  # seconds since the epoch
    processes: int = 1
    inputs: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)

    @property
    def device_hours(self) -> float:
        return self.seconds / 3600 * self.processes


def run_stage(root: Path, address: StageAddress, launch: Launch) -> Recorded:
    """Bring one address up to date: skip, restore from the run cache, or launch its job and record it.

    Raises InputError, CheckFailed or InputsMoved; the ledger then keeps its last entry.
    """
    ledger = Ledger(root)
    with StageLock(root, address) as lock:
        begun = ledger.begin(address, lock)
        if isinstance(begun, Recorded):
            return begun
        started = time.time()
        finish(begun, lock, launch)
        recorded = ledger.record(begun)
        keep_telemetry(root, begun, recorded.data_version, time.time() - started)
        return recorded


def run_inside_dvc(root: Path, address: StageAddress, launch: Launch) -> None:
    """Run the job of a stage that a `dvc repro` has begun and will record."""
    ledger = Ledger(root)
    with StageLock(root, address) as lock:
        spec = ledger.job_inside_dvc(address)
        if spec is None:
            print(f"{address}: already made and recorded by another run")
            return
        started = time.time()
        finish(spec, lock, launch)
        ledger.publish_inside_dvc(spec)
        keep_telemetry(root, spec, "", time.time() - started)


def finish(spec: JobSpec, lock: StageLock, launch: Launch) -> None:
    """Have the job's result: of one that outlived the run that started it, or of one launched now."""
    if is_finished(spec):
        print(f"{spec.address}: taking the finished result of an earlier job", flush=True)
        return
    refuse_uneven_batch(spec)
    spec.write()
    try:
        launch(spec, lock)
    except BaseException as error:
        end_open_run(spec, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def keep_telemetry(root: Path, spec: JobSpec, data_version: str, seconds: float) -> None:
    """Write `last_run.json`, keep the telemetry of the job, and drop the checkpoints of the finished job."""
    folder = last_run_folder(root, spec.address)
    keep_unsent(Outbox(folder / OUTBOX), root)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mlflow_run = outbox_of(spec).run
    for name in TELEMETRY:
        if (spec.state / name).exists():
            (spec.state / name).rename(folder / name)
    last_run = LastRun(
        fingerprint=spec.fingerprint,
        data_version=data_version,
        git_commit=git_commit(root),
        mlflow_experiment_id=mlflow_run.experiment_id if mlflow_run else None,
        mlflow_run_id=mlflow_run.run_id if mlflow_run else None,
        seconds=seconds,
        finished_at=time.time(),
        processes=spec.processes * spec.needs.nodes,
        inputs=spec.input_versions,
        code=code_read(root, spec),
    )
    (folder / "last_run.json").write_text(json.dumps(last_run.__dict__, indent=1))
    shutil.rmtree(spec.work)


def code_read(root: Path, spec: JobSpec) -> dict[str, str]:
    """File -> MD5. It is as the job read it: a run whose inputs moved is refused before this is called."""
    paths = [path for path in spec.input_hashes if ":" not in path and stage_of_path(path) is None]
    return {file: version for path in paths for file, version in code_versions(root, path).items()}


def last_run_folder(root: Path, address: StageAddress) -> Path:
    """Telemetry of the newest run."""
    return root / ".work" / address.folder_name / "last_run"


def read_last_run(root: Path, address: StageAddress) -> LastRun | None:
    path = last_run_folder(root, address) / "last_run.json"
    if not path.exists():
        return None
    last_run = LastRun(**json.loads(path.read_text()))
    if last_run.mlflow_run_id is None and (sent_later := Outbox(path.parent / OUTBOX).run) is not None:
        return replace(
            last_run, mlflow_experiment_id=sent_later.experiment_id, mlflow_run_id=sent_later.run_id
        )
    return last_run


def read_report(root: Path, profile: str, address: StageAddress) -> dict:
    """The `report.json` of an address's recorded output, from DVC's cache or remote where the output is not here.

    Raises InputError where it is nowhere.
    """
    return json.loads(read_output(root, profile, address, "report.json"))


def read_output(root: Path, profile: str, address: StageAddress, name: str) -> str:
    """A text file of an address's recorded output, found as `read_report` finds its file."""
    path = output_folder(profile, address) / name
    if (root / path).exists():
        return (root / path).read_text(encoding="utf-8")
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        return dvc.api.read(path.as_posix(), repo=str(root), encoding="utf-8")
    except (DvcException, OSError) as error:
        raise InputError(
            f"{address}: {path} is neither here nor in the remote ({type(error).__name__}); make it again"
        ) from None
