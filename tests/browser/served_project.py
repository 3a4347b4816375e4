"""A project to click in, and `alto ui` for it on free ports."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import yaml

from jobs.acquisition.sa1b_writer import write_shard
from jobs.sample_scenes.scene import SceneConfig, draw_scene
from jobs.sample_scenes.seeds import scene_rng
from tests.jobs.acquisition.object_store import free_ports
from tests.lineage.project import copy_repository, environment, repro, run
from tests.lineage.test_damaged_data import damage_first_image

SECONDS_TO_START = 600
SECONDS_TO_END = 60
IMAGES = 8
DAMAGED, SOUND = "batch_000", "batch_001"
MARK = "TESTS_BROWSER_INTERFACE"  # in the environment of every process of one interface


@dataclass(frozen=True)
class Interface:
    """Addresses of what `alto ui` serves for the project at `root`."""

    root: Path
    dagster: str
    pages: str


def make_project(folder: Path) -> Path:
    """Profile smoke, with two batches of shards acquired, the masks of one image of the first damaged, and a report on
    results of systems whose answers are known beforehand."""
    from tests.jobs.benchmark_example import known_systems  # torch: seconds
    from tests.jobs.test_benchmark_report import make_inputs

    root = copy_repository(folder / "project")
    draw_shards(folder / "drawn")
    (root / "shards").mkdir()
    damage_first_image(folder / "drawn" / "sa_000000.tar", root / "shards" / "sa_000000.tar")
    shutil.copy(folder / "drawn" / "sa_000001.tar", root / "shards")
    parameters = yaml.safe_load((root / "params.yaml").read_text())
    parameters["acquire_sa1b"] |= {"source": "folder", "folder": "shards"}
    (root / "params.yaml").write_text(yaml.safe_dump(parameters))
    repro(root, "acquire_sa1b")
    for name, made in make_inputs(folder / "measured", known_systems()).items():
        shutil.copytree(made, root / "reports" / "smoke" / name)
    run(root, "-m", "jobs.benchmark_report")
    return root


def draw_shards(folder: Path) -> None:
    folder.mkdir()
    for name in ("sa_000000.tar", "sa_000001.tar"):
        generators = [scene_rng(0, name, index) for index in range(IMAGES)]
        write_shard(((draw_scene(rng, SceneConfig()), rng) for rng in generators), folder / name)


@contextmanager
def user_interface(root: Path, dagster_home: Path | None = None) -> Iterator[Interface]:
    """`alto ui`, ready; nothing of it is left afterwards, runs and their jobs included.

    dagster_home: a folder; by default the project's own.
    """
    mark = str(uuid4())
    ports = dict(zip(("dagster", "mlflow", "pages"), free_ports(3), strict=True))
    options = [text for name, port in ports.items() for text in (f"--{name}-port", str(port))]
    variables = {MARK: mark} | ({} if dagster_home is None else {"DAGSTER_HOME": str(dagster_home)})
    log = root / ".work" / "ui.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli", "ui", *options],
            cwd=root,
            env=environment(root) | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_ready(process, log)
        yield Interface(root, *(f"http://127.0.0.1:{ports[name]}" for name in ("dagster", "pages")))
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
        kill_marked(mark)


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while "\nDagster  http://" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"`alto ui` did not start:\n{log.read_text()}")
        time.sleep(0.2)


def kill_marked(mark: str) -> None:
    """Also what was started by a process that has ended."""
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                process.kill()
                left.append(process)
    psutil.wait_procs(left)
