"""The plan as observations on the assets."""

import dagster as dg

from orchestration.plan import Cost, PlanTable, Row
from orchestration.plan_events import show_plan

NONE = Cost(rows=0, seconds=0.0, device_hours=0.0, unknown=0)


def row(address: str, plan: str, why: str = "") -> Row:
    return Row(
        address=address,
        plan=plan,  # type: ignore[arg-type]
        why=why,
        changes=[],
        waits_for=[],
        seconds=60.0,
        device_hours=0.5,
        estimated=False,
    )


def table(*rows: Row) -> PlanTable:
    return PlanTable(rows=list(rows), runs=NONE, runs_if_changed=NONE)


def test_a_changed_plan_is_shown_once_and_taken_back_when_it_is_done() -> None:
    done = table(row("prepare_sa1b@a", "does_not_run"), row("prepare_sa1b@b", "does_not_run"))
    stale = table(row("prepare_sa1b@a", "does_not_run"), row("prepare_sa1b@b", "runs", "seed: 1 → 2"))
    with dg.DagsterInstance.ephemeral() as instance:
        assert show_plan(instance, done) == []
        assert show_plan(instance, stale) == ["prepare_sa1b"]
        assert show_plan(instance, stale) == []
        metadata = latest(instance).metadata
        assert (metadata["plan"].value, metadata["why"].value) == ("runs", "seed: 1 → 2")
        assert metadata["device hours last time"].value == 0.5
        (partition,) = metadata["to do"].records
        assert partition.data["partition"] == "prepare_sa1b@b"
        assert show_plan(instance, done) == ["prepare_sa1b"]
        assert latest(instance).metadata["plan"].value == "does not run"


def latest(instance: dg.DagsterInstance) -> dg.AssetObservation:
    observation = (
        instance.fetch_observations(dg.AssetKey("prepare_sa1b"), limit=1).records[0].asset_observation
    )
    assert observation is not None
    return observation
