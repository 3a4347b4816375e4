"""Jobs on a real Slurm of two nodes, through both doors. Needs root and Debian's slurm-wlm and munge."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from data_contracts.errors import InputError
from jobs.runner.job_spec import Needs
from jobs.runner.verdict import is_finished, leave_finished
from orchestration.launching.interface import JobHandle, JobOrder, JobPhase
from orchestration.launching.slurm.launcher import SlurmLauncher
from orchestration.launching.slurm.settings import SlurmSettings
from tests.cluster.project import change, cluster_project
from tests.jobs.stage_processes import curve as job_curve
from tests.jobs.stage_processes import written
from tests.jobs.tokenizer_example import ROOT, write_prepared_masks
from tests.lineage.project import copy_without, data_versions, environment, plan, repro, run
from tests.orchestration.launching.orders import order
from tests.services.slurm import Slurm, slurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DATA = (
    "acquire_sa1b@batch_000",
    "acquire_sa1b@batch_001",
    "prepare_sa1b@batch_000",
    "prepare_sa1b@batch_001",
)
TRAINING = "tokenizer_stage1"
NEEDS = {"cpus": 1, "memory_gb": 2, "hours": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    with slurm() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", started.environment["SLURM_CONF"])
        yield started


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return found


# The launcher alone, with jobs of a moment.


@pytest.fixture
def launcher(cluster: Slurm, tmp_path: Path) -> SlurmLauncher:
    return SlurmLauncher(tmp_path, SlurmSettings(seconds_between_looks=0.01))


def phase(launcher: SlurmLauncher, handle: JobHandle) -> JobPhase:
    return launcher.status(handle).phase


def ended(launcher: SlurmLauncher, handle: JobHandle) -> Any:
    return wait_until(lambda: launcher.status(handle).phase.is_over and launcher.status(handle))


def test_a_job_is_found_watched_and_over(launcher: SlurmLauncher) -> None:
    code = "import os, time; print(os.environ['PLANTED'], os.getcwd(), flush=True); time.sleep(1)"
    handle = launcher.submit(order(launcher.root, "watched", code))
    assert launcher.find(handle.name) == handle
    assert launcher.jobs() == [handle]
    assert ended(launcher, handle).phase is JobPhase.SUCCEEDED
    assert launcher.log(handle, 0).decode() == f"a 'b' $c {launcher.root}\n"
    assert launcher.log(handle, 2).decode().startswith("'b'")
    assert launcher.find(handle.name) is None
    assert launcher.jobs() == []


def test_how_a_job_ended_is_told(launcher: SlurmLauncher) -> None:
    failing = launcher.submit(order(launcher.root, "failing", "raise SystemExit(3)"))
    killed = launcher.submit(order(launcher.root, "killed", "import os; os.kill(os.getpid(), 9)"))
    late = launcher.submit(order(launcher.root, "late", "import time; time.sleep(600)"))
    status = ended(launcher, failing)
    assert (status.phase, status.exit_code, status.nodes) == (JobPhase.FAILED, 3, "n1")
    assert status.reason == "ended FAILED on n1: NonZeroExitCode"
    assert ended(launcher, killed).exit_code == 137
    wait_until(lambda: phase(launcher, late) is JobPhase.RUNNING)
    launcher.cancel(late)
    assert ended(launcher, late).phase is JobPhase.CANCELLED
    launcher.cancel(late)  # over: nothing happens


def test_jobs_of_another_work_tree_are_not_ours(launcher: SlurmLauncher, tmp_path: Path) -> None:
    other = SlurmLauncher(tmp_path / "other", launcher.settings)
    handle = other.submit(order(other.root, "same", "import time; time.sleep(600)"))
    beside = SlurmLauncher(tmp_path / "beside", launcher.settings)
    assert beside.find(handle.name) is None
    assert beside.jobs() == []
    assert other.find(handle.name) == handle
    other.cancel(handle)


def test_two_jobs_of_one_name_never_run_at_once(launcher: SlurmLauncher) -> None:
    first = launcher.submit(order(launcher.root, "one", "import time; time.sleep(600)"))
    second = launcher.submit(order(launcher.root, "one", "pass"))
    wait_until(lambda: phase(launcher, first) is JobPhase.RUNNING)
    wait_until(lambda: launcher.status(second).reason == "Dependency")
    launcher.cancel(first)
    assert ended(launcher, second).phase is JobPhase.SUCCEEDED


@pytest.mark.parametrize(
    ("needs", "settings", "line"),
    [
        (Needs(memory_gb=999), {}, "mask_tokens: Slurm refused the job .*see resources.needs"),
        (Needs(), {"cpu": {"partition": "nowhere"}}, "Invalid partition"),
        (Needs(gpus=1), {}, "Invalid generic resource"),
    ],
)
def test_what_the_cluster_cannot_give_is_refused_with_its_reason(
    launcher: SlurmLauncher, needs: Needs, settings: dict, line: str
) -> None:
    launcher.settings = SlurmSettings.model_validate(settings)
    with pytest.raises(InputError, match=line):
        launcher.submit(order(launcher.root, "refused", "pass", needs))


def test_of_a_forgotten_job_its_own_marker_tells(launcher: SlurmLauncher) -> None:
    done, lost = order(launcher.root, "done", ""), order(launcher.root, "lost", "")
    done.spec.staging.mkdir(parents=True)
    leave_finished(done.spec)
    assert phase(launcher, JobHandle(done.name, "999998", done.spec.work)) is JobPhase.SUCCEEDED
    assert phase(launcher, JobHandle(lost.name, "999999", lost.spec.work)) is JobPhase.FORGOTTEN


# Stops as a worker does: Slurm sends SIGTERM when the time of grace begins.
ONCE_MORE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(75))
print('start', os.environ.get('SLURM_RESTART_COUNT', '0'), os.environ['SLURMD_NODENAME'], flush=True)
time.sleep(0 if 'SLURM_RESTART_COUNT' in os.environ else 600)
"""


def starts(launcher: SlurmLauncher, handle: JobHandle) -> list[str]:
    return re.findall(r"^start (\d \w+)$", launcher.log(handle, 0).decode(), re.MULTILINE)


def test_a_pre_empted_job_is_started_again(cluster: Slurm, launcher: SlurmLauncher) -> None:
    handle = launcher.submit(order(launcher.root, "low", ONCE_MORE, Needs(cpus=4, memory_gb=0.5)))
    wait_until(lambda: starts(launcher, handle))
    launcher.settings = SlurmSettings.model_validate(
        {"cpu": {"partition": "urgent"}, "seconds_between_looks": 0.01}
    )
    code, node = "import time; time.sleep(600)", Needs(cpus=4, memory_gb=0.5)
    urgent = [launcher.submit(order(launcher.root, name, code, node)) for name in ("urgent1", "urgent2")]
    wait_until(lambda: phase(launcher, handle) is JobPhase.PENDING)
    assert launcher.find(handle.name) == handle
    for other in urgent:
        launcher.cancel(other)
    assert ended(launcher, handle).phase is JobPhase.SUCCEEDED
    assert [start[0] for start in starts(launcher, handle)] == ["0", "1"]


def test_a_job_whose_node_fails_is_started_on_another_or_said_to_have_lost_its_node(
    cluster: Slurm, launcher: SlurmLauncher
) -> None:
    handle = launcher.submit(order(launcher.root, "unlucky", ONCE_MORE))
    wait_until(lambda: starts(launcher, handle))
    cluster.fail_node("n1")
    try:
        phase_at_end = ended(launcher, handle).phase
    finally:
        cluster.start_node("n1")
    if (
        phase_at_end is not JobPhase.NODE_FAILED
    ):  # Slurm took it for a failed launch; whoever watches tries again
        assert phase_at_end is JobPhase.SUCCEEDED
        assert starts(launcher, handle) == ["0 n1", "1 n2"]


def test_a_training_on_two_nodes_that_is_warned_goes_on_after_the_queue(
    cluster: Slurm, tmp_path: Path
) -> None:
    launcher = SlurmLauncher(ROOT, SlurmSettings(seconds_between_looks=0.01))
    prepared = write_prepared_masks(tmp_path / "prepared")
    changes = {"steps": 60, "save_every": 5, "health": {"max_loss_ratio": 10.0, "min_codebook_usage": 0.0}}
    spec = written(TRAINING, tmp_path / "work", {"prepare_sa1b": prepared}, 1, changes)
    spec = spec.model_copy(update={"needs": Needs(nodes=2, memory_gb=2)})
    spec.write()
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    handle = launcher.submit(JobOrder.of(spec, store))
    wait_until(lambda: (spec.state / "training_state.pt").exists(), 200)
    # What Slurm does `warning_seconds` before the end of the job's time.
    cluster.command("scancel", "--signal=USR1", handle.id)
    wait_until(lambda: phase(launcher, handle) is JobPhase.PENDING, 120)
    assert (spec.work / "stopped.txt").exists()
    wait_until(lambda: phase(launcher, handle).is_over, 200)
    log = launcher.log(handle, 0).decode()
    assert phase(launcher, handle) is JobPhase.SUCCEEDED, log
    assert is_finished(spec)
    (saved,) = re.findall(r"asked to stop: checkpoint saved after step (\d+) of 60", log)
    assert f"going on after step {saved}" in log
    assert max(job_curve(spec)) == 60


# The lineage, its first training on two nodes.


@pytest.fixture(scope="module")
def prepared(cluster: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data was prepared by Dagster, each stage as a job of the cluster."""
    needs = {"default": NEEDS, TRAINING: {"nodes": 2}}
    root = cluster_project(tmp_path_factory.mktemp("cluster") / "project", {"needs": needs})
    # Without the quantiser: rounding tips the choice of a code now and then, and with it what follows.
    objective = yaml.safe_load((root / "params.yaml").read_text())[TRAINING]["objective"]
    change(root / "params.yaml", TRAINING, {"objective": objective | {"quantize_from": 1.0}})
    run(root, "-m", "tests.lineage.materialize", "base_weights", *DATA)
    return root


@pytest.fixture(scope="module")
def trained(cluster: Slurm, prepared: Path) -> tuple[Path, set[str]]:
    """Trained on two nodes by Dagster; also what Dagster showed while Slurm said that the job was running."""
    log = prepared / "materialize.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "tests.lineage.materialize", TRAINING]
        process = subprocess.Popen(command, cwd=prepared, env=environment(prepared), stdout=file, stderr=file)
    seen: set[str] = set()
    while process.poll() is None:
        shown = shown_by_dagster(prepared)
        if re.search(r"^\S*stage1\S* RUNNING$", cluster.command("squeue", "-h", "-o", "%j %T"), re.MULTILINE):
            seen |= shown
        time.sleep(0.3)
    assert process.returncode == 0, log.read_text()
    return prepared, seen


def shown_by_dagster(root: Path) -> set[str]:
    """Which of `PATTERNS` the newest run's event log and compute log hold."""
    os.environ["DAGSTER_HOME"] = environment(root)["DAGSTER_HOME"]
    with dg.DagsterInstance.get() as instance:
        newest = instance.get_runs(limit=1)[0].run_id
        events = "\n".join(entry.user_message for entry in instance.all_logs(newest))
    folder = Path(environment(root)["DAGSTER_HOME"]) / "storage" / newest
    output = "\n".join(file.read_text(errors="replace") for file in folder.rglob("*.out"))
    text = events + output
    return {name for name, pattern in PATTERNS.items() if re.search(pattern, text)}


PATTERNS = {
    "nodes": r"alto-smoke-tokenizer-stage1-[0-9a-f]{12} running n\[1-2\]",
    "point of the curves": r"step 16  .*loss \d",
    "progress": r"Training stage 1: +\d+%.*\| \d+/16",
    "figure": r"iou 0\.\d+",
    "check": r"check training_health passed: ",
}


def test_dagster_shows_what_the_job_does_while_it_runs(trained: tuple[Path, set[str]]) -> None:
    assert trained[1] == set(PATTERNS)


def test_two_nodes_train_what_one_process_trains(trained: tuple[Path, set[str]], tmp_path: Path) -> None:
    root, _ = trained
    alone = copy_without(root, tmp_path / "alone", TRAINING)
    change(alone / "params.yaml", "resources", {"launcher": "local", "needs": {"default": {"cpus": 1}}})
    run(alone, "-m", f"jobs.{TRAINING}")
    one, two = (curve(project) for project in (alone, root))
    assert one.keys() == two.keys()
    for step, point in one.items():
        assert two[step] == pytest.approx(point, rel=1e-2, abs=1e-3)
    telemetry = json.loads((root / ".work" / TRAINING / "last_run" / "last_run.json").read_text())
    assert telemetry["processes"] == 2


def curve(root: Path) -> dict[int, dict[str, float]]:
    lines = (root / ".work" / TRAINING / "last_run" / "metrics.jsonl").read_text().splitlines()
    return {point.pop("step"): point for point in map(json.loads, lines)}


def test_what_slurm_made_is_recorded(trained: tuple[Path, set[str]], cluster: Slurm) -> None:
    root, _ = trained
    assert set(data_versions(root)) == {"base_weights", *DATA, TRAINING}
    status = run(root, "-m", "dvc", "status", TRAINING, *DATA).stdout
    assert "up to date" in status
    checks = json.loads(run(root, "-m", "tests.lineage.check_state", TRAINING).stdout.splitlines()[-1])
    assert checks["training_health"] is True
    assert set(cluster.jobs().values()) <= {"COMPLETED", "CANCELLED", "FAILED"}


def test_the_whole_lineage_runs_on_the_cluster(prepared: Path, cluster: Slurm, tmp_path: Path) -> None:
    root = copy_without(prepared, tmp_path / "project", "base_weights")
    run(root, "-m", "orchestration.cli", "profile", "smoke")
    change(root / "params.yaml", "resources", {"launcher": "slurm", "needs": {"default": NEEDS}})
    before = set(cluster.jobs())
    run(root, "-m", "tests.lineage.materialize")
    made = set(data_versions(root)) - set(DATA)
    assert {address.split("@")[0] for address in made} >= {"altollm_grpo", "benchmark_report", TRAINING}
    assert set(plan(root).values()) == {"no"}
    assert repro(root) == []
    jobs = cluster.jobs()
    assert [jobs[job] for job in jobs.keys() - before] == ["COMPLETED"] * len(made)


def test_dvc_repro_runs_a_stage_on_the_cluster(
    trained: tuple[Path, set[str]], cluster: Slurm, tmp_path: Path
) -> None:
    root = copy_without(trained[0], tmp_path / "project", "base_weights")
    before = set(cluster.jobs())
    printed = run(root, "-m", "dvc", "repro", "base_weights")
    assert "submitted alto-smoke-base-weights-" in printed.stdout + printed.stderr
    (job,) = set(cluster.jobs()) - before
    assert cluster.jobs()[job] == "COMPLETED"
    assert data_versions(root)["base_weights"] == data_versions(trained[0])["base_weights"]


def test_dvc_repro_refuses_what_no_shell_should_see(prepared: Path, tmp_path: Path) -> None:
    root = copy_without(prepared, tmp_path / "project", "base_weights")
    change(root / "infra/slurm/settings.yaml", "slurm", {"cpu": {"partition": "$(touch x);.."}})
    refused = run(root, "-m", "dvc", "repro", "base_weights", check=False)
    assert refused.returncode != 0
    assert "error: infra/slurm/settings.yaml: slurm.cpu.partition: " in refused.stderr
    assert "base_weights" not in data_versions(root)
    assert not list(tmp_path.rglob("x"))
