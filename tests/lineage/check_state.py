"""Print the newest result of each check of an asset, as JSON: `python -m tests.lineage.check_state ASSET`."""

import json
import sys
from pathlib import Path

import dagster as dg

from orchestration.local_services import use_project_home


def main(asset: str) -> None:
    use_project_home(Path.cwd())
    with dg.DagsterInstance.get() as instance:
        records = instance.get_event_records(
            dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION), limit=100, ascending=True
        )
        results = {}
        for record in records:
            evaluation = record.event_log_entry.dagster_event.event_specific_data
            if evaluation.asset_key == dg.AssetKey(asset):
                results[evaluation.check_name] = evaluation.passed
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
