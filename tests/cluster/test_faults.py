"""What goes wrong around a job: the state in Dagster, DVC, MLflow and Slurm is right, and no checkpoint is lost."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from orchestration.launching.job_files import watched_file
from orchestration.launching.orphans import launchers_in_use, orphans
from orchestration.local_services import answers
from tests.cluster.training_project import REPOSITORY, STEPS, Project, gone, slurm_states, wait_until
from tests.jobs.acquisition.object_store import ObjectStore, client, free_ports
from tests.jobs.runner import toy_project
from tests.services.postgres import postgres, programs
from tests.services.site import dagster_variables
from tests.services.slurm import Slurm, slurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS_AWAY = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    with slurm() as started:
        yield started


@pytest.fixture
def local(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def on_slurm(tmp_path: Path, cluster: Slurm) -> Project:
    return Project(tmp_path / "project", "slurm", dict(cluster.environment))


@pytest.fixture(params=["local", "slurm"])
def project(request: pytest.FixtureRequest) -> Project:
    return request.getfixturevalue({"local": "local", "slurm": "on_slurm"}[request.param])


def assert_no_step_was_lost(lives: list[int], at_least: int) -> None:
    """Each life but the first began where a checkpoint had been."""
    assert lives[0] == 0
    assert len(lives) > 1
    assert all(later >= at_least for later in lives[1:]), lives


def test_a_cancelled_run_ends_its_job_with_a_checkpoint(local: Project) -> None:
    run = local.materialize("tokenizer_stage1").until_step(10)
    (job,) = run.job_processes()
    run.cancel()
    run.fails()
    assert gone(job)
    assert run.status() == "CANCELED"
    assert [one.info.status for one in local.mlflow_runs()] == ["KILLED"]
    saved = local.checkpoint("tokenizer_stage1")
    assert 10 <= saved < STEPS
    again = local.materialize("tokenizer_stage1", "again").succeeds()
    assert again.lives() == [saved]
    (one,) = local.mlflow_runs()  # the same one goes on
    assert one.info.status == "FINISHED"


def test_a_cancelled_run_ends_its_slurm_job_with_a_checkpoint(on_slurm: Project, cluster: Slurm) -> None:
    run = on_slurm.materialize("mask_tokens").until_step(10)
    run.cancel()
    run.fails()
    assert run.status() == "CANCELED"
    again = on_slurm.materialize("mask_tokens", "again").succeeds()  # waits for the end of the cancelled one
    assert slurm_states(cluster, on_slurm, "mask_tokens") == ["CANCELLED", "COMPLETED"]
    assert_no_step_was_lost([0, *again.lives()], 10)


def test_the_job_outlives_its_killed_run_and_the_next_one_takes_its_result(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "SLURM_CONF" in project.environment:
        monkeypatch.setenv("SLURM_CONF", project.environment["SLURM_CONF"])
    project.set("mask_tokens", seconds=0.15)
    run = project.materialize("mask_tokens").until_step(5)
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    (launcher,) = launchers_in_use(project.root)
    assert not list(orphans(launcher, project.root)), "just now it was watched"
    os.utime(watched_file(project.work("mask_tokens")), (0, 0))
    assert [orphan.work for orphan in orphans(launcher, project.root)] == [project.work("mask_tokens")]
    again = project.materialize("mask_tokens", "again").succeeds()
    assert again.lives() in ([0], []), "no second job"
    assert re.search(
        r"attached to alto-toy-mask-tokens|taking the finished result of an earlier job", again.log
    )
    assert again.status() == "SUCCESS"


def test_a_killed_job_is_started_again_from_its_checkpoint(project: Project) -> None:
    run = project.materialize("tokenizer_stage1").until_step(20)
    os.kill(run.job_processes()[0], signal.SIGKILL)
    run.succeeds()
    assert_no_step_was_lost(run.lives(), 20)
    assert "the job was killed" in run.log
    assert run.status() == "SUCCESS"
    (one,) = project.mlflow_runs()
    assert one.info.status == "FINISHED"
    assert one.data.metrics["total"] == sum(range(STEPS))


def test_one_of_two_processes_is_killed(local: Project) -> None:
    run = local.materialize("altollm_sft").until_step(10)
    os.kill(run.job_processes()[1], signal.SIGKILL)
    run.succeeds()
    assert "the job was killed (process 1 ended first: SIGKILL)" in run.log
    assert_no_step_was_lost(run.lives(), 10)


def test_memory_that_is_not_to_be_had_is_named_and_not_asked_for_again(local: Project) -> None:
    run = local.materialize("mask_tokens", ALTO_TEST_FAULT="memory")
    log = run.fails()
    assert "mask_tokens: the job ran out of memory (MemoryError). Raise resources.needs.mask_tokens" in log
    assert run.lives() == [0]
    assert run.status() == "FAILURE"
    assert local.materialize("mask_tokens", "again").succeeds().lives() == [5]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("a small file system has to be mounted: needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine mounts no tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_leaves_the_last_checkpoint_whole(small_disk: Path) -> None:
    project = Project(small_disk)
    run = project.materialize("mask_tokens")
    assert "(resources.needs.mask_tokens.disk_gb): see `alto housekeeping`" in run.fails()
    assert run.lives() == []
    project.parameters["resources"]["needs"]["default"]["disk_gb"] = 0  # somebody fills the disk later
    project.set()
    run = project.materialize("mask_tokens", ALTO_TEST_FAULT="disk")
    log = run.fails()
    assert "mask_tokens: the job found the disk full (OSError: [Errno 28] No space left on device" in log
    assert run.lives() == [0]
    assert run.status() == "FAILURE"
    (project.work("mask_tokens") / "state" / "large.partial").unlink()
    assert project.materialize("mask_tokens", "again").succeeds().lives() == [5]


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """Address of a server that is being started."""
    address = f"http://127.0.0.1:{(port := free_ports(1)[0])}"
    stores = ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    stores += ["--default-artifact-root", (tmp_path / "artifacts").as_uri()]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *stores],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        start_new_session=True,
    )
    yield address
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def test_mlflow_is_away_for_the_whole_run_and_back_later(local: Project, mlflow_server: str) -> None:
    local.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{free_ports(1)[0]}"  # where nobody answers
    run = local.materialize("tokenizer_stage1").succeeds()
    assert run.status() == "SUCCESS"
    assert "warning: MLflow is not reachable" in run.log
    local.environment["MLFLOW_TRACKING_URI"] = mlflow_server
    wait_until(lambda: answers(mlflow_server), "the server")
    code = (
        "from pathlib import Path; from jobs.runner.tracking import send_kept; print(send_kept(Path.cwd()))"
    )
    sent = subprocess.run(
        [sys.executable, "-c", code],
        cwd=local.root,
        env=local.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert sent.stdout.splitlines()[-1] == "['tokenizer_stage1']"
    (one,) = local.mlflow_runs()
    assert one.info.status == "FINISHED"
    assert one.data.metrics == {"loss": pytest.approx(1 / STEPS), "total": sum(range(STEPS))}


def test_two_runs_of_one_stage_at_once_start_one_job(project: Project) -> None:
    first = project.materialize("mask_tokens", "first").until_step(1)
    second = project.materialize("mask_tokens", "second")
    first.succeeds()
    second.succeeds()
    assert first.lives() == [0]
    assert second.lives() == []
    assert [run.status() for run in (first, second)] == ["SUCCESS"] * 2


def test_the_controller_is_killed_and_away_for_30_seconds(on_slurm: Project, cluster: Slurm) -> None:
    """One job goes on and ends meanwhile, another one is to be submitted."""
    on_slurm.set("tokenizer_stage1", seconds=0.1)
    run = on_slurm.materialize("tokenizer_stage1").until_step(5)
    (number,) = re.findall(r"submitted \S+ \((\d+)\)", run.log)
    cluster.save_state(number)
    cluster.kill_controller()
    killed = time.monotonic()
    try:
        submitted = on_slurm.materialize("mask_tokens", "submitted")
        run.wait_for(lambda: on_slurm.checkpoint("tokenizer_stage1") == STEPS, "the end of the job")
        run.wait_for(lambda: " unknown " in run.log, "the run to see that nobody answers")
        run.wait_for(lambda: time.monotonic() - killed > SECONDS_AWAY, "the controller's return")
    finally:
        cluster.start_controller()
    run.succeeds()
    submitted.succeeds()
    assert [run.lives(), submitted.lives()] == [[0], [0]]
    for stage in ("tokenizer_stage1", "mask_tokens"):
        assert slurm_states(cluster, on_slurm, stage) == ["COMPLETED"]
    assert on_slurm.run_statuses() == ["SUCCESS"] * 2
    (one,) = on_slurm.mlflow_runs()
    assert one.info.status == "FINISHED"
    assert one.data.metrics["total"] == sum(range(STEPS))


def test_the_controller_is_killed_before_it_has_written_down_that_there_is_a_job(
    on_slurm: Project, cluster: Slurm
) -> None:
    """Started again it knows nothing of the job, has its node kill what runs, and may hold back what comes next."""
    on_slurm.set("mask_tokens", seconds=0.2)
    run = on_slurm.materialize("mask_tokens").until_step(5)
    cluster.kill_controller(before_it_saved=str(on_slurm.root))
    cluster.start_controller()
    run.succeeds()
    assert_no_step_was_lost(run.lives(), 5)
    assert "the job was forgotten by its scheduler" in run.log
    assert run.status() == "SUCCESS"
    assert "COMPLETED" in slurm_states(cluster, on_slurm, "mask_tokens")


def test_a_requeued_job_goes_on(on_slurm: Project, cluster: Slurm) -> None:
    run = on_slurm.materialize("mask_tokens").until_step(20)
    (number,) = re.findall(r"submitted \S+ \((\d+)\)", run.log)
    cluster.command("scontrol", "requeue", number)
    run.succeeds()
    assert_no_step_was_lost(run.lives(), 20)
    assert run.status() == "SUCCESS"


def test_a_job_that_is_warned_of_its_time_limit_goes_on_in_another_life(
    on_slurm: Project, cluster: Slurm
) -> None:
    on_slurm.set("mask_tokens", seconds=0.5)
    on_slurm.parameters["resources"]["needs"]["default"]["hours"] = 1 / 60
    on_slurm.set()
    run = on_slurm.materialize("mask_tokens").succeeds()
    assert run.status() == "SUCCESS"
    assert_no_step_was_lost(run.lives(), 1)
    assert sorted(run.lives()) == run.lives()


def test_object_storage_hangs_and_comes_back(local: Project, object_store: ObjectStore) -> None:
    storage = client(object_store.address)
    storage.put_object(Bucket="storage", Key="object", Body=b"content")
    local.set("mask_tokens", endpoint=object_store.address)
    run = local.materialize("mask_tokens").until_step(10)
    process = psutil.Process(object_store.process.pid)
    process.suspend()
    try:
        run.wait_for(
            lambda: "the job lost its object storage (botocore.exceptions." in run.log,
            "the loss to be seen",
        )
    finally:
        process.resume()
    run.succeeds()
    assert_no_step_was_lost(run.lives(), 10)
    assert run.status() == "SUCCESS"


def test_dagsters_database_is_away_while_the_job_ends(local: Project) -> None:
    """Settings of a deployment; for longer than Dagster itself tries again to connect."""
    try:
        programs()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    settings = yaml.safe_load((REPOSITORY / "infra/dagster/production.yaml").read_text())
    del settings["compute_logs"]  # in a bucket, which this test has none of
    (local.root.parent / "dagster/dagster.yaml").write_text(yaml.safe_dump(settings))
    with postgres(("dagster",)) as database:
        local.environment |= dagster_variables(database)
        run = local.materialize("tokenizer_stage1").until_step(5)
        database.stop()
        try:
            run.wait_for(lambda: "waiting for Dagster's database" in run.log, "the run to miss its database")
        finally:
            database.start()
        run.succeeds()
        events = "select dagster_event_type from event_logs where dagster_event_type is not null order by id"
        recorded = database.program("psql", "-tA", "dagster", "-c", events).stdout.split()
        (status,) = database.program("psql", "-tA", "dagster", "-c", "select status from runs").stdout.split()
    assert run.lives() == [0]
    assert status == "SUCCESS"
    assert recorded.count("ASSET_MATERIALIZATION") == 1
    assert recorded[-1] == "PIPELINE_SUCCESS"
    (one,) = local.mlflow_runs()
    assert one.info.status == "FINISHED"
    assert one.data.metrics["total"] == sum(range(STEPS))


def test_the_daemon_is_killed(local: Project, tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    with log.open("wb") as file:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "--empty-workspace"],
            cwd=local.root,
            env=local.environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    wait_until(lambda: "Instance is configured with the following daemons" in log.read_text(), "the daemon")
    run = local.materialize("mask_tokens").until_step(10)
    assert daemon.poll() is None
    os.killpg(daemon.pid, signal.SIGKILL)
    daemon.wait()
    run.succeeds()
    assert run.lives() == [0]
    assert run.status() == "SUCCESS"


def test_fifty_slurm_jobs_end_at_once(tmp_path: Path) -> None:
    root = toy_project.create(tmp_path / "project")
    partitions = [f"p{number:02}" for number in range(50)]
    stages = yaml.safe_load((root / "dvc.yaml").read_text())
    stages["stages"]["prepare_sa1b"]["matrix"]["batch"] = partitions
    (root / "dvc.yaml").write_text(yaml.safe_dump(stages))
    for partition in partitions:
        (root / "raw" / f"{partition}.txt").write_text(f"raw {partition}\n")
    with slurm(cpus=len(partitions) // 2) as large:
        module = [sys.executable, "-m", "tests.cluster.ending_at_once", str(root), *partitions]
        subprocess.run(module, cwd=toy_project.REPOSITORY, env=large.environment, check=True)
        assert list(large.jobs().values()) == ["COMPLETED"] * len(partitions)
    recorded = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    assert sorted(recorded) == [f"prepare_sa1b@{partition}" for partition in partitions]
    for partition in partitions:
        result = root / "data/toy/prepare_sa1b" / partition / "result.txt"
        assert result.read_text() == f"sum of {partition}"
    addresses = [f"prepare_sa1b@{partition}" for partition in partitions]
    assert "up to date" in toy_project.dvc(root, "status", *addresses).stdout
    toy_project.assert_cache_is_sound(root)
