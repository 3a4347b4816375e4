"""Names from partitions.yaml, params.yaml or a command that a shell would run, or that lead elsewhere, are refused."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from data_contracts.errors import InputError
from jobs.runner.lineage import read_lineage
from orchestration import cli
from orchestration.partitions import add_batch
from tests.lineage.project import copy_repository, run

HOSTILE = (
    "$(touch touched);..",
    "`touch touched`",
    "a;touch touched",
    "../../touched",
    "-rf",
    "a b",
    "a\nb",
    "",
)
REFUSED = "may hold only"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("hostile") / "repository")


@pytest.fixture
def project(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "project", symlinks=True))


def write(root: Path, file: str, *keys: str, value: object) -> None:
    content = yaml.safe_load((root / file).read_text())
    section = content
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    (root / file).write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_reads_a_lineage_with_such_a_name(project: Path, name: str) -> None:
    read_lineage(project)
    write(project, "partitions.yaml", "benchmark", "benchmarks", value=["scenes", name])
    with pytest.raises(InputError, match=REFUSED):
        read_lineage(project)
    shutil.copy(Path(__file__).parents[2] / "partitions.yaml", project)
    write(project, "params.yaml", "profile", value=name)
    with pytest.raises(InputError, match=REFUSED):
        read_lineage(project)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_batch_is_made_of_such_a_shard(project: Path, name: str) -> None:
    before = (project / "partitions.yaml").read_bytes()
    with pytest.raises(InputError, match=REFUSED):
        add_batch(project, ["sa_000009.tar", name])
    assert (project / "partitions.yaml").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("partitions.yaml", ("sa1b", "shards", "batch_000"), [f"{HOSTILE[0]}/x.tar"]),
        ("params.yaml", ("profile",), HOSTILE[0]),
    ],
    ids=["shard", "profile"],
)
def test_neither_door_lets_it_through(project: Path, file: str, keys: tuple[str, ...], value: object) -> None:
    write(project, file, *keys, value=value)
    for door in (("dvc", "repro"), ("tests.lineage.materialize",)):
        done = run(project, "-m", *door, "acquire_sa1b@batch_000", check=False)
        assert done.returncode != 0
        assert REFUSED in done.stdout + done.stderr
    assert not list(project.parent.rglob("touched*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("profile", HOSTILE[0]),
        ("accept", f"prepare_sa1b@{HOSTILE[0]}", "--reason", "none"),
        ("accept", HOSTILE[0], "--reason", "none"),
        ("benchmark", "altollm", "../../../etc", "--out", "new"),
    ],
    ids=["profile", "partition", "stage", "benchmark"],
)
def test_the_command_refuses_it(
    project: Path,
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["alto", *arguments])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert not list(project.parent.rglob("touched*"))
