"""What a thousand shards and a year of versions cost: definitions, status, recording, sensor and pages.

A project with stand-in outputs is built first (minutes); nothing in it is ever computed.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg

from jobs.runner.layout import StageAddress
from jobs.runner.ledger import Ledger
from jobs.runner.lineage import Lineage, read_lineage
from orchestration.ledger_sync import sync_ledger
from orchestration.local_services import use_project_home
from orchestration.sensors import state_of_files
from tests.benchmarks import scale_project
from tests.benchmarks.costs import Cost, cost
from tests.benchmarks.harness import machine, publish, table
from tests.benchmarks.pages import asset_pages, load, webserver
from tests.lineage.project import environment

ASSET = "prepare_sa1b"
BATCH = StageAddress(ASSET, "batch_000")
LOAD = "from orchestration.definitions import defs; defs.get_repository_def().load_all_definitions()"


def commands(root: Path) -> Iterator[Cost]:
    """What runs in a process of its own."""

    def python(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run(
            [sys.executable, *arguments], cwd=root, env=environment(root), check=True, capture_output=True
        )

    yield cost("load the definitions, from a cold start", python("-c", LOAD), 10)
    yield cost("`dvc status`", python("-m", "dvc", "status"), 20)
    yield cost("`alto plan`", python("-m", "orchestration.cli", "plan"))


def ledger_and_sensor(lineage: Lineage) -> Iterator[Cost]:
    """What happens inside Dagster's processes."""
    root, ledger = lineage.root, Ledger(lineage.root)
    with ledger.locked_stages() as stages:
        spec = ledger.job_spec(stages, stages.find(BATCH), BATCH)
    scale_project.lay_out_in(spec.staging, root, BATCH, version="53")
    yield cost("look whether one batch is stale", lambda: ledger.current(BATCH))
    yield cost("record one finished batch", lambda: ledger.record(spec), 5)
    with dg.DagsterInstance.get() as instance:
        yield cost("sensor tick after it", lambda: sync_ledger(root, instance), 5)
        yield cost("sensor tick, nothing new", lambda: state_of_files(root, time.time()), 5)


def pages(root: Path) -> Iterator[Cost]:
    """Processor time would be the server's."""
    assets = [stage.name for stage in read_lineage(root).stages]
    near = ["acquire_sa1b", "tokenizer_stage1", "tokenizer_stage1_5", "tokenizer_benchmark"]
    with webserver(root) as address:
        for title, page in asset_pages(ASSET, near, assets).items():
            for turn in ("first", "again"):
                yield Cost(what=f"{title}, {turn}", wall=load(address, page), cpu=float("nan"), target=3)


def report(root: Path, lineage: Lineage, title: str) -> str:
    os.environ["DAGSTER_HOME"] = str(root / ".work" / "dagster")
    use_project_home(root)
    with chdir(root):
        costs = [*commands(root), *ledger_and_sensor(lineage), *pages(root)]
    busy = os.getloadavg()[0]
    rows = [one.row() for one in costs]
    columns = ("what", "seconds", "of processor", "target")
    lines = len((root / "dvc.lock").read_text().splitlines())
    return (
        f"{title}: {len(lineage.addresses)} addresses, {lines} lines of dvc.lock "
        f"({machine()}; {busy:.1f} processes wanted its {os.cpu_count()} cores):\n\n{table(columns, rows)}"
    ).replace("nan", "–")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--batches", type=int, default=99)
    parser.add_argument("--versions", type=int, default=52, help="recorded of each output")
    parser.add_argument(
        "--folder", type=Path, help="build the project here and keep it; measure again if it is there"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    title = f"{options.shards} shards in {options.batches} batches, {options.versions} versions"
    with TemporaryDirectory() as temporary:
        root = (options.folder or Path(temporary) / "project").resolve()
        built = (root / ".work" / "dagster").exists()
        if built:
            lineage = read_lineage(root)
        else:
            lineage = scale_project.build(root, options.shards, options.batches, options.versions)
        publish("scale", report(root, lineage, title), options.write)


if __name__ == "__main__":
    main()
