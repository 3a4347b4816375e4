"""The plan on the assets' pages: an observation wherever it changed, before anything runs."""

from itertools import groupby

import dagster as dg

from jobs.runner.layout import StageAddress
from jobs.runner.ledger import value_hash
from orchestration.plan import WORDS, PlanTable, Row

PLAN_TAG = "alto/plan"
WORST_FIRST = ("runs", "restored", "runs_if_changed", "does_not_run")


def show_plan(instance: dg.DagsterInstance, plan: PlanTable) -> list[str]:
    """Report what Dagster does not show yet; returns the names of the assets."""
    shown = []
    for stage, group in groupby(plan.rows, key=lambda row: StageAddress.parse(row.address).stage):
        rows = list(group)
        tag = value_hash([[row.address, row.plan, row.why] for row in rows])
        latest = instance.fetch_observations(dg.AssetKey(stage), limit=1).records
        known = latest[0].asset_observation if latest else None
        idle = all(row.plan == "does_not_run" for row in rows)
        if (known is None and idle) or (known and known.tags.get(PLAN_TAG) == tag):
            continue
        observation = dg.AssetObservation(stage, metadata=plan_metadata(rows), tags={PLAN_TAG: tag})
        instance.report_runless_asset_event(observation)
        shown.append(stage)
    return shown


def plan_metadata(rows: list[Row]) -> dict[str, dg.MetadataValue]:
    """Of one asset: the plan, and each partition for which there is something to do."""
    first = min(rows, key=lambda row: WORST_FIRST.index(row.plan))
    todo = [row for row in rows if row.plan != "does_not_run"]
    metadata: dict[str, dg.MetadataValue] = {"plan": dg.MetadataValue.text(WORDS[first.plan])}
    if not todo:
        return metadata
    metadata["why"] = dg.MetadataValue.text(first.why)
    metadata["seconds last time"] = dg.MetadataValue.float(sum(row.seconds or 0.0 for row in todo))
    metadata["device hours last time"] = dg.MetadataValue.float(sum(row.device_hours or 0.0 for row in todo))
    records = [
        dg.TableRecord({"partition": row.address, "plan": WORDS[row.plan], "why": row.why}) for row in todo
    ]
    return metadata | {"to do": dg.MetadataValue.table(records)}
