"""Print what Dagster shows of every address's newest materialization, as JSON: `python -m tests.lineage.shown`."""

import json
from pathlib import Path

import dagster as dg

from jobs.runner.lineage import read_lineage
from orchestration.definitions import build_definitions
from orchestration.local_services import use_project_home

SCHEMA = "dagster/column_schema"
OF_THE_RUN = {"how", "seconds", "mlflow run", "data docs", "output"}  # or of the folder of the project


def main() -> None:
    root = Path.cwd()
    use_project_home(root)
    graph = build_definitions(root).resolve_asset_graph()
    shown = {}
    with dg.DagsterInstance.get() as instance:
        for address in read_lineage(root).addresses:
            key = dg.AssetKey(address.stage)
            record = instance.get_latest_data_version_record(key, None, address.partition)
            assert record is not None, address
            assert record.asset_materialization is not None, address
            metadata = record.asset_materialization.metadata
            declared = graph.get(key).metadata.get(SCHEMA)
            shown[str(address)] = {
                "metadata": {
                    name: str(value.value) for name, value in metadata.items() if name not in OF_THE_RUN
                },
                "as declared": metadata[SCHEMA].value == declared if SCHEMA in metadata else declared is None,
            }
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
