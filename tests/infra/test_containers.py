"""The container file says what is in the image, and no more gets in. It is not built here: that needs a daemon."""

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "infra" / "containers" / "Containerfile"


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of each line, continuation lines joined."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word.upper(), rest)
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def arguments_of(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def copied_from_project() -> list[str]:
    sources = [rest.split()[:-1] for rest in arguments_of("COPY") if not rest.startswith("--from")]
    return [source for line in sources for source in line]


def ignored(path: str) -> bool:
    """Whether `.dockerignore` keeps a file of the project from the builder: its last pattern that matches decides."""
    parts = path.split("/")
    ancestors = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    kept_out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        matched = any(
            fnmatch.fnmatch(ancestor.split("/")[-1], pattern.removeprefix("**/"))
            if pattern.startswith("**/")
            else fnmatch.fnmatch(ancestor, pattern)
            for ancestor in ancestors
        )
        if matched:
            kept_out = not line.startswith("!")
    return kept_out


def test_sources_exist_and_reach_the_builder():
    assert copied_from_project()
    for source in copied_from_project():
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


def test_all_packages_are_in_the_image():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"][
        "include"
    ]
    assert {package.rstrip("*") for package in packages} <= set(copied_from_project())


def test_bases_are_pinned_by_tag():
    bases = {rest.split()[0] for rest in arguments_of("FROM")}
    assert bases == {"${PYTHON_IMAGE}", "lock-${VARIANT}"}
    image = next(value for value in arguments_of("ARG") if value.startswith("PYTHON_IMAGE="))
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-[a-z]+", image)


def test_versions_come_from_the_lock_files():
    assert {"requirements.lock", "requirements-cuda.lock"} <= set(copied_from_project())
    installs = [part for run in arguments_of("RUN") for part in run.split("&&") if "pip install" in part]
    assert len(installs) == 2
    assert all("--constraint /lock/requirements.lock" in install for install in installs)


def test_every_runtime_package_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w.-]+", line).group().lower() for line in project["dependencies"]}
    for lock in ("requirements.lock", "requirements-cuda.lock"):
        locked = {line.partition("==")[0].lower() for line in (ROOT / lock).read_text().splitlines()}
        assert names <= locked, lock


def test_the_image_runs_without_root():
    assert arguments_of("USER")[-1] == "10001:10001"
    after = [word for word, _ in instructions()][[word for word, _ in instructions()].index("USER") :]
    assert "RUN" not in after


def test_no_secret_is_asked_for_or_set():
    for value in arguments_of("ENV") + arguments_of("ARG"):
        assert not re.search(r"(?i)password|secret|token\b|api_?key|access_key", value), value


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        "infra/.env",
        "infra/production.env",
        "infra/secrets/mlflow",
        "jobs/runner/server.key",
        ".git/config",
        ".dvc/config.local",
        ".dvc/cache/files/md5/00/11",
        "data/small/prepare_sa1b/shard-00000.parquet",
        "models/small/altollm_sft/model.safetensors",
        ".work/mlflow/mlflow.db",
        "tests/conftest.py",
    ],
)
def test_secrets_and_data_do_not_reach_the_builder(path):
    assert ignored(path)


def test_tracked_code_reaches_the_builder():
    tracked = subprocess.run(
        ["git", "ls-files", "jobs", "orchestration", "infra"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [path for path in tracked.stdout.splitlines() if ignored(path)] == []
