"""What `dvc repro` made, shown in Dagster."""

from uuid import uuid4

import dagster as dg
import pytest

from jobs.runner.layout import StageAddress
from orchestration.ledger_sync import report_checks


def content(passed: bool) -> dict[str, object]:
    check = {
        "name": "answers_well_formed",
        "passed": passed,
        "blocking": True,
        "reason": "for the test",
        "details": {},
    }
    return {"figures": {}, "checks": [check]}


@pytest.mark.parametrize("address", [StageAddress("benchmark", "scenes"), StageAddress("altollm_sft", None)])
def test_checks_of_an_output_made_anew_replace_those_before(address: StageAddress) -> None:
    key = dg.AssetCheckKey(dg.AssetKey(address.stage), "answers_well_formed")
    with dg.DagsterInstance.ephemeral() as instance:
        for passed in (False, True, True, False):
            instance.report_runless_asset_event(
                dg.AssetMaterialization(address.stage, partition=address.partition)
            )
            report_checks(instance, address, content(passed), run_id=str(uuid4()))
            records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
            evaluation = records[0].event.dagster_event.asset_check_evaluation_data
            assert evaluation.passed == passed
            assert evaluation.partition == address.partition
