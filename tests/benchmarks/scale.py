"""What a thousand shards and a year of versions cost: definitions, status, recording, sensor and pages.

A project with stand-in outputs is built first (minutes); nothing in it is ever computed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from functools import partial
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
from tests.benchmarks.harness import machine, publish, table
from tests.benchmarks.page_queries import page_queries
from tests.jobs.acquisition.object_store import free_ports
from tests.lineage.project import environment

ASSET = "prepare_sa1b"
BATCH = StageAddress(ASSET, "batch_000")
LOAD = "from orchestration.definitions import defs; defs.get_repository_def().load_all_definitions()"
CONNECTIONS = 6  # of a browser to one server
SECONDS_TO_START = 180


@dataclass(frozen=True, kw_only=True)
class Cost:
    """wall, cpu: seconds. target: seconds of an idle machine; None where none was set."""

    what: str
    wall: float
    cpu: float
    target: float | None = None

    def row(self) -> tuple[str, str, str, str]:
        return (
            self.what,
            f"{self.wall:.1f}",
            f"{self.cpu:.1f}",
            f"{self.target:g}" if self.target else "–",
        )


def cost(what: str, action: Callable[[], object], target: float | None = None) -> Cost:
    """Of this process and the children it waits for."""
    start, cpu = time.perf_counter(), _processor_seconds()
    action()
    return Cost(what=what, wall=time.perf_counter() - start, cpu=_processor_seconds() - cpu, target=target)


def _processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


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
    """The queries that Dagster's own pages send, several at a time; processor time is the server's."""
    assets = [stage.name for stage in read_lineage(root).stages]
    one, everything = _keys([ASSET]), _keys(assets)
    near = _keys([ASSET, "acquire_sa1b", "tokenizer_stage1", "tokenizer_stage1_5", "tokenizer_benchmark"])
    workspace = {"name": "orchestration.definitions"}
    live = ("AssetGraphLiveQuery", "AssetStaleStatusDataQuery", "AssetsFreshnessInfoQuery")
    asset_page = {
        "AssetViewDefinitionQuery": {"assetKey": one[0]},
        "AssetDefinitionCollisionQuery": {"assetKeys": one},
        "AssetOverviewMetadataEventsQuery": {"assetKey": one[0]},
        "AssetRecordsQuery": {"limit": 1000},
        "LocationWorkspaceQuery": workspace,
        "LocationWorkspaceAssetsQuery": workspace,
        **{name: {"assetKeys": near} for name in live},
    }
    partitions_page = {
        "PartitionHealthQuery": {"assetKey": one[0]},
        **{name: {"assetKeys": one} for name in live},
    }
    lineage_page = {
        "AssetRecordsQuery": {"limit": 1000},
        **{name: {"assetKeys": everything} for name in live},
    }
    with webserver(root) as address:
        queries = page_queries()
        shown = {
            "asset page": asset_page,
            "its partitions": partitions_page,
            "the whole lineage": lineage_page,
        }
        for title, page in shown.items():
            asked = [(queries[name], variables) for name, variables in page.items()]
            for turn in ("first", "again"):
                start = time.perf_counter()
                with ThreadPoolExecutor(CONNECTIONS) as threads:
                    list(threads.map(partial(_ask, address), *zip(*asked, strict=True)))
                seconds = time.perf_counter() - start
                yield Cost(what=f"{title}, {turn}", wall=seconds, cpu=float("nan"), target=3)


def _keys(assets: list[str]) -> list[dict[str, list[str]]]:
    return [{"path": [name]} for name in assets]


def _ask(address: str, query: str, variables: dict) -> None:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        answer = json.load(response)
    if answer.get("errors"):
        raise RuntimeError(answer["errors"][0]["message"])


@contextmanager
def webserver(root: Path) -> Iterator[str]:
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "dagster_webserver", "-m", "orchestration.definitions"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=root, env=environment(root), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                _ask(address, "{ version }", {})
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


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
