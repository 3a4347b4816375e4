"""What Dagster shows of an asset beside its stage: whether it follows its inputs by itself, and when it is too old."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import dagster as dg

from data_contracts.errors import InputError
from orchestration.automation.settings import SETTINGS_FILE, Age

# Preparing costs minutes of processors and no device: it follows what was acquired. Training follows a schedule.
FOLLOWS_ITS_INPUTS = ("prepare_sa1b", "prepare_referring", "prepare_benchmark")


def with_automation(
    assets: Sequence[dg.AssetsDefinition], ages: Mapping[str, Age]
) -> list[dg.AssetsDefinition]:
    """Raises InputError where the settings name no asset."""
    names = {key.to_user_string() for asset in assets for key in asset.keys}
    if unknown := ages.keys() - names:
        raise InputError(f"{SETTINGS_FILE}: freshness_days: {', '.join(sorted(unknown))} is no asset")

    def automated(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.to_user_string()
        if name in FOLLOWS_ITS_INPUTS:
            spec = spec.replace_attributes(automation_condition=dg.AutomationCondition.eager())
        if age := ages.get(name):
            policy = dg.FreshnessPolicy.time_window(
                fail_window=timedelta(days=age.fail), warn_window=timedelta(days=age.warn)
            )
            spec = spec.replace_attributes(freshness_policy=policy)
        return spec

    return [asset.map_asset_specs(automated) for asset in assets]
