"""The Dagster code location: assets from `dvc.yaml`, with what people should see of them."""

from pathlib import Path

import dagster as dg

from assets import altollm, benchmarks, data, tokenizer
from assets.code_links import linked_to_repository
from assets.shipping import registration_asset
from assets.stage_asset import build_assets
from jobs.runner.layout import project_root
from jobs.runner.lineage import read_lineage
from orchestration.alerts.sensor import alert_sensor
from orchestration.automation.conditions import with_automation
from orchestration.automation.retraining import new_data_sensor, retraining_schedule
from orchestration.automation.retrying import retry_sensor
from orchestration.automation.settings import read_automation
from orchestration.housekeeping.jobs import housekeeping_job, housekeeping_schedule
from orchestration.housekeeping.settings import read_retention
from orchestration.jobs import phase_jobs, retraining
from orchestration.launching.session import StageLauncher
from orchestration.partitions import partitions_definitions
from orchestration.promotion.assets import beats_champion_check, promotion_asset
from orchestration.sensors import build_sensors

STAGE_ASSETS = (*data.ASSETS, *tokenizer.ASSETS, *altollm.ASSETS, *benchmarks.ASSETS)


def build_definitions(root: Path) -> dg.Definitions:
    """All definitions for the project at `root`."""
    lineage = read_lineage(root)
    automation = read_automation(root)
    jobs = {job.name: job for job in phase_jobs()}
    housekeeping = housekeeping_job(root)
    assets = [
        *build_assets(STAGE_ASSETS, lineage, partitions_definitions(root)),
        registration_asset(root),
        promotion_asset(root),
    ]
    return dg.Definitions(
        assets=with_automation(linked_to_repository(assets, root), automation.freshness_days),
        asset_checks=[beats_champion_check(root)],
        jobs=[*jobs.values(), retraining, housekeeping],
        schedules=[
            retraining_schedule(root, automation.retraining),
            housekeeping_schedule(housekeeping, read_retention(root)),
        ],
        sensors=[
            *build_sensors(root, jobs, automation.new_data),
            new_data_sensor(root, automation.retraining),
            alert_sensor(root),
            retry_sensor([*jobs.values(), retraining], automation.retrying),
        ],
        # A step waits for its job, which is a process of its own; one more would double what a run costs.
        executor=dg.in_process_executor,
        resources={"launcher": StageLauncher()},
    )


defs = build_definitions(project_root())
