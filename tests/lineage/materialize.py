"""Materialize the lineage in Dagster, one address after the other: `python -m tests.lineage.materialize`."""

import sys
from pathlib import Path

import dagster as dg

from jobs.runner.lineage import read_lineage
from orchestration.definitions import build_definitions
from orchestration.local_services import use_project_home
from orchestration.partitions import add_missing_batches


def main(addresses: list[str]) -> None:
    root = Path.cwd()
    use_project_home(root)
    definitions = build_definitions(root)
    assets = list(definitions.resolve_asset_graph().assets_defs)
    with dg.DagsterInstance.get() as instance:
        add_missing_batches(root, instance)
        for address in read_lineage(root).addresses:
            if addresses and str(address) not in addresses:
                continue
            dg.materialize(
                assets,
                selection=[address.stage],
                partition_key=address.partition,
                instance=instance,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
