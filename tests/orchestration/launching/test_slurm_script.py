"""What Slurm is given for a job: nothing in it is read as code, whatever the values hold."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.errors import InputError
from jobs.runner.job_spec import JobSpec, Needs
from jobs.runner.worker import parse_config
from orchestration.launching.interface import JOB_NAME, JobOrder, checked_name, job_name
from orchestration.launching.slurm.script import job_script, sbatch_arguments
from orchestration.launching.slurm.settings import SlurmSettings, read_settings
from tests.lineage.project import ROOT

HOSTILE = "$(touch x);.. `touch x` '\"\\ %j | > x & #"
# Stands in for srun and scontrol: says what it was given, and which variables the job would see.
RECORDER = """#!/bin/bash
if [ "$(basename "$0")" = scontrol ]; then
  case "$*" in
    "show hostnames"*) printf 'n1\\nn2\\n' ;;
    *"show node n1") echo "NodeName=n1 NodeAddr=10.0.0.1 NodeHostName=n1" ;;
    "show job 7") ;;
    "--oneliner show job 7") echo "JobId=7 JobState=$FAKE_STATE" ;;
    requeue*) echo "$*" >> requeued ;;
    *) exit 1 ;;
  esac
  exit
fi
printf '%s\\0' "$@" > arguments
env -0 > variables
exit "${FAKE_STATUS:-0}"
"""


def spec(work: Path, partition: str | None = None, **changes: object) -> JobSpec:
    values = {
        "stage": "tokenizer_stage1",
        "partition": partition,
        "partition_items": (),
        "profile": "smoke",
        "fingerprint": "0123456789abcdef" * 2,
        "parameters": {},
        "seed": 1,
        "inputs": {},
        "input_hashes": {},
        "work": work,
    }
    return JobSpec.model_validate(values | changes)


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bin")
    for name in ("srun", "scontrol"):
        (folder / name).write_text(RECORDER)
        (folder / name).chmod(0o755)
    return folder


def run_script(
    script: str, folder: Path, bin_folder: Path, status: int = 0, restarts: int = 0, state: str = "RUNNING"
) -> tuple[int, list[str], dict[str, str]]:
    """Exit status, what srun was given, and the variables it saw."""
    folder.mkdir(exist_ok=True)
    (folder / "job.sh").write_text(script)
    environment = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "FAKE_STATUS": str(status),
        "FAKE_STATE": state,
    }
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_RESTART_COUNT": str(restarts)}
    ended = subprocess.run(["bash", "job.sh"], cwd=folder, env=environment, check=False)
    variables = (folder / "variables").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    return (
        ended.returncode,
        (folder / "arguments").read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1],
        dict(variable.split("=", 1) for variable in variables if variable),
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(
        st.just(HOSTILE), st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)))
    )
)
def test_values_of_any_kind_reach_the_job_unchanged_and_run_nothing(
    text: str, tmp_path: Path, bin_folder: Path
) -> None:
    order = JobOrder(
        name="alto-a",
        spec=spec(tmp_path / "work"),
        worker=("-m", "worker", text),
        environment={"PLANTED": text},
    )
    site = SlurmSettings()
    folder = tmp_path / "run"
    status, arguments, variables = run_script(job_script(order, site, tmp_path), folder, bin_folder)
    assert status == 0
    assert arguments[-4:] == [order.python, "-m", "worker", text]
    assert variables["PLANTED"] == text
    assert sorted(path.name for path in folder.iterdir()) == ["arguments", "job.sh", "variables"]


def test_a_folder_of_any_name_is_one_argument(tmp_path: Path) -> None:
    work = tmp_path / HOSTILE / "work"
    order = JobOrder.of(spec(work), {})
    arguments = sbatch_arguments(order, SlurmSettings(), tmp_path / HOSTILE, work / "job.sh")
    assert f"--comment={work}" in arguments
    assert f"--output={work / 'job.log'}".replace("%", "%%") in arguments
    assert arguments[-1] == str(work / "job.sh")


def test_a_job_of_several_nodes_meets_at_the_first(tmp_path: Path, bin_folder: Path) -> None:
    order = JobOrder.of(spec(tmp_path, needs=Needs(nodes=2, cpus=8), processes=4), {})
    script = job_script(order, SlurmSettings(), tmp_path)
    _, arguments, first = run_script(script, tmp_path / "run", bin_folder)
    _, _, fourth = run_script(script, tmp_path / "run", bin_folder, restarts=3)
    assert first["PET_MASTER_ADDR"] == fourth["PET_MASTER_ADDR"] == "10.0.0.1"
    assert 20000 <= int(first["PET_MASTER_PORT"]) < 32000
    assert int(fourth["PET_MASTER_PORT"]) == int(first["PET_MASTER_PORT"]) + 3
    command = shlex.join(arguments)
    assert "--cpus-per-task=8" in command
    assert "-m jobs.runner.torchrun --nnodes 2 --nproc-per-node 4 -m jobs.runner.worker" in command
    assert "PET_NODE_RANK=$SLURM_NODEID" in command


@pytest.mark.parametrize(
    ("status", "marker", "restarts", "state", "requeued"),
    [
        (75, False, 0, "RUNNING", True),
        (1, True, 0, "RUNNING", True),
        (1, False, 0, "RUNNING", False),
        (0, True, 0, "RUNNING", False),
        (75, False, 20, "RUNNING", False),
        (75, True, 0, "CANCELLED", False),
    ],
)
def test_a_job_that_was_told_to_stop_goes_back_into_the_queue(
    tmp_path: Path, bin_folder: Path, status: int, marker: bool, restarts: int, state: str, requeued: bool
) -> None:
    order = JobOrder.of(spec(tmp_path), {})
    if marker:
        (tmp_path / "stopped.txt").touch()
    script = job_script(order, SlurmSettings(requeues=20), tmp_path)
    ended, _, _ = run_script(script, tmp_path / "run", bin_folder, status, restarts, state)
    assert ended == status
    assert (tmp_path / "run" / "requeued").exists() == requeued


def test_needs_and_site_become_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    site = SlurmSettings.model_validate(
        {
            "gpu": {"partition": "a100", "account": "proj1", "qos": "long", "constraint": "hbm&ib"},
            "gpu_type": "h100",
            "warning_seconds": 300,
            "pass_environment": ["AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"],
        }
    )
    needs = Needs(gpus=8, nodes=2, cpus=64, memory_gb=1.5, hours=0.75)
    order = JobOrder.of(spec(tmp_path, needs=needs, processes=8), {})
    arguments = sbatch_arguments(order, site, tmp_path, tmp_path / "job.sh")
    assert set(arguments) >= {
        *("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=64", "--mem=1536M", "--time=45"),
        *("--gres=gpu:h100:8", "--partition=a100", "--account=proj1", "--qos=long", "--constraint=hbm&ib"),
        *("--requeue", "--signal=USR1@300", "--dependency=singleton", "--export=AWS_SECRET_ACCESS_KEY"),
        f"--job-name={order.name}",
    }
    assert "planted-secret" not in shlex.join(arguments) + job_script(order, site, tmp_path)
    short = JobOrder.of(spec(tmp_path, needs=Needs(hours=1 / 30)), {})
    assert "--signal=USR1@60" in sbatch_arguments(short, site, tmp_path, tmp_path / "job.sh")
    without = JobOrder.of(spec(tmp_path), {})
    cpu = sbatch_arguments(without, site, tmp_path, tmp_path / "job.sh")
    assert not [one for one in cpu if one.startswith(("--gres", "--partition", "--account", "--qos"))]


@pytest.mark.parametrize("runtime", ["pyxis", "apptainer"])
def test_processes_run_in_the_container(tmp_path: Path, bin_folder: Path, runtime: str) -> None:
    site = SlurmSettings.model_validate(
        {
            "container": {"runtime": runtime, "image": "/images/alto.sqsh", "mounts": ["/scratch"]},
            "python": "python3",
        }
    )
    order = JobOrder.of(spec(tmp_path, needs=Needs(gpus=1)), {})
    _, arguments, _ = run_script(job_script(order, site, tmp_path), tmp_path / "run", bin_folder)
    command = shlex.join(arguments)
    if runtime == "pyxis":
        assert "--container-image=/images/alto.sqsh" in arguments
        assert f"--container-mounts={tmp_path}:{tmp_path},/scratch:/scratch" in arguments
        assert f"--container-workdir={tmp_path}" in arguments
    else:
        assert f"apptainer exec --nv --bind={tmp_path}:{tmp_path} --bind=/scratch:/scratch" in command
        assert f"--pwd={tmp_path} /images/alto.sqsh python3" in command
    assert command.endswith(f"python3 -m jobs.runner.worker {order.spec.path}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("partition", "$(touch x);.."),
        ("partition", "-p other"),
        ("account", "a b"),
        ("qos", "a\nb"),
        ("constraint", "`x`"),
    ],
)
def test_a_queue_that_is_no_name_is_refused(key: str, value: str) -> None:
    with pytest.raises(InputError, match=rf"infra/slurm/settings.yaml: slurm.cpu.{key}: "):
        parse_config(SlurmSettings, "slurm", {"cpu": {key: value}}, "infra/slurm/settings.yaml")


@pytest.mark.parametrize(
    "wrong",
    [
        {"gpu_type": "a:b"},
        {"container": {"runtime": "pyxis", "image": "$(x)"}},
        {"container": {"runtime": "pyxis", "image": "a", "mounts": ["/a,/etc:/etc"]}},
        {"container": {"runtime": "pyxis", "image": "a", "mounts": ["relative"]}},
        {"container": {"runtime": "docker", "image": "a"}},
        {"pass_environment": ["A=b"]},
        {"variables": {"A;B": "c"}},
        {"variables": {"A": "b\nc"}},
        {"patience": 3},
    ],
)
def test_other_settings_that_no_command_line_could_hold_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="slurm"):
        parse_config(SlurmSettings, "slurm", wrong, "infra/slurm/settings.yaml")


def test_the_shipped_settings_hold() -> None:
    assert read_settings(ROOT) == SlurmSettings(pass_environment=read_settings(ROOT).pass_environment)


KEY = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", fullmatch=True)


@settings(max_examples=50, deadline=None)
@given(partition=st.none() | KEY, profile=KEY)
def test_every_job_has_a_name_that_clusters_take(partition: str | None, profile: str) -> None:
    one = spec(Path("work"), partition, profile=profile)
    name = job_name(one)
    assert JOB_NAME.fullmatch(name)
    assert len(name) <= 63
    assert name.endswith("-0123456789ab")
    assert name == job_name(one)


def test_long_partitions_that_begin_alike_have_names_of_their_own() -> None:
    names = {job_name(spec(Path("work"), "a" * 90 + end)) for end in "bc"}
    assert len(names) == 2


@pytest.mark.parametrize(
    "name", ["alto-$(touch x)", "alto-a b", "alto-", "other-a", "alto-a\n", "alto-" + "a" * 59]
)
def test_what_is_no_job_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is no job name"):
        checked_name(name)
