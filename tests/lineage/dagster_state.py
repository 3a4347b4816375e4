"""Print what Dagster itself says of every address, as JSON: `python -m tests.lineage.dagster_state`."""

import json
from pathlib import Path

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from jobs.runner.lineage import read_lineage
from orchestration.definitions import build_definitions
from orchestration.local_services import use_project_home


def main() -> None:
    root = Path.cwd()
    use_project_home(root)
    graph = build_definitions(root).resolve_asset_graph()
    with dg.DagsterInstance.get() as instance:
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        state = {}
        for address in read_lineage(root).addresses:
            key = dg.AssetKey(address.stage)
            record = instance.get_latest_data_version_record(key, None, address.partition)
            tags = (record.event_log_entry.tags or {}) if record else {}
            status = resolver.get_status(key, address.partition).value
            state[str(address)] = [tags.get("dagster/data_version"), status]
    print(json.dumps(state))


if __name__ == "__main__":
    main()
