"""The sensor that tells people (docs/alerts.md)."""

import time
from pathlib import Path

import dagster as dg

from orchestration.alerts.tick import tell

SECONDS_BETWEEN_LOOKS = 60


def alert_sensor(root: Path) -> dg.SensorDefinition:
    @dg.sensor(
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells those in infra/alerts.yaml of failures, of what grew too old, and of the champion.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        lines = list(tell(root, context.instance, time.time()))
        return dg.SkipReason("; ".join(lines) or "nothing new")

    return alerts
