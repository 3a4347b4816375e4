"""Alerts of what lasts: data and models that are too old, jobs that nobody watches. Each is told once."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import dagster as dg

from orchestration.alerts.alert import Alert, dagster_address, iso_time
from orchestration.alerts.state import State
from orchestration.automation.settings import Age
from orchestration.launching.interface import JobHandle


def look_at_ages(
    instance: dg.DagsterInstance, state: State, ages: Mapping[str, Age], now: float
) -> tuple[list[Alert], State]:
    """Assets whose last materialization is older than their freshness policy allows. now: seconds since the epoch."""
    alerts, too_old = [], {}
    for asset, age in ages.items():
        newest = instance.fetch_materializations(dg.AssetKey(asset), limit=1).records
        if not newest or now - newest[0].timestamp < timedelta(days=age.fail).total_seconds():
            continue
        too_old[asset] = newest[0].storage_id
        if state.too_old.get(asset) != newest[0].storage_id:
            alerts.append(
                Alert(
                    id=f"too old {asset} {newest[0].storage_id}",
                    kind="too_old",
                    subject=asset,
                    text=f"{asset} is more than {age.fail} days old: last made {iso_time(newest[0].timestamp)}",
                    time=iso_time(newest[0].timestamp + timedelta(days=age.fail).total_seconds()),
                    link=f"{dagster_address()}/assets/{asset}",
                )
            )
    return alerts, state.model_copy(update={"too_old": too_old})


def look_at_orphans(state: State, found: Sequence[JobHandle], now: float) -> tuple[list[Alert], State]:
    """Jobs that nobody watches and that were none at the last look. now: seconds since the epoch."""
    jobs = {f"{handle.name} ({handle.id})": handle for handle in found}
    alerts = [
        Alert(
            id=f"orphan {name}",
            kind="orphaned_job",
            subject=handle.name,
            text=f"nobody watches job {name}: materialize its asset to take it up, or cancel it",
            time=iso_time(now),
        )
        for name, handle in jobs.items()
        if name not in state.orphans
    ]
    return alerts, state.model_copy(update={"orphans": tuple(jobs)})
