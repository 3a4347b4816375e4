"""Dagster's pages: a webserver, and the queries that its own pages send, several at a time."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.page_queries import page_queries
from tests.jobs.acquisition.object_store import free_ports
from tests.lineage.project import environment

CONNECTIONS = 6  # of a browser to one server
SECONDS_TO_START = 180
LIVE = ("AssetGraphLiveQuery", "AssetStaleStatusDataQuery", "AssetsFreshnessInfoQuery")

Page = Mapping[str, Mapping[str, Any]]  # name of each query -> its variables


def asset_pages(asset: str, neighbours: Sequence[str], assets: Sequence[str]) -> dict[str, Page]:
    """Title -> queries, of a partitioned asset and of the whole lineage."""
    one, near, everything = keys([asset]), keys([asset, *neighbours]), keys(assets)
    workspace = {"name": "orchestration.definitions"}
    return {
        "asset page": {
            "AssetViewDefinitionQuery": {"assetKey": one[0]},
            "AssetDefinitionCollisionQuery": {"assetKeys": one},
            "AssetOverviewMetadataEventsQuery": {"assetKey": one[0]},
            "AssetRecordsQuery": {"limit": 1000},
            "LocationWorkspaceQuery": workspace,
            "LocationWorkspaceAssetsQuery": workspace,
            **{name: {"assetKeys": near} for name in LIVE},
        },
        "its partitions": {
            "PartitionHealthQuery": {"assetKey": one[0]},
            **{name: {"assetKeys": one} for name in LIVE},
        },
        "the whole lineage": {
            "AssetRecordsQuery": {"limit": 1000},
            **{name: {"assetKeys": everything} for name in LIVE},
        },
    }


def keys(assets: Sequence[str]) -> list[dict[str, list[str]]]:
    return [{"path": [name]} for name in assets]


def load(address: str, page: Page) -> float:
    """Seconds until all answers are there. Raises RuntimeError where one is an error."""
    queries = page_queries()
    asked = [(queries[name], variables) for name, variables in page.items()]
    start = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(partial(_ask, address), *zip(*asked, strict=True)))
    return time.perf_counter() - start


def _ask(address: str, query: str, variables: Mapping[str, Any]) -> None:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{error}: {error.read().decode()[:2000]}") from error
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
