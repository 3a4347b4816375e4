"""What `alto alert` says and sends."""

import time
from pathlib import Path

from orchestration.alerts.alert import Alert, dagster_address, iso_time
from orchestration.alerts.delivery import DeliveryFailed, send
from orchestration.alerts.settings import SETTINGS_FILE, read_alerts


def who_is_told(root: Path) -> list[str]:
    """A line for each destination. Raises InputError where the settings are wrong."""
    told = [f"{one.name}: {', '.join(one.kinds)}" for one in read_alerts(root).destinations]
    return told or [f"{SETTINGS_FILE} names nobody to be told"]


def send_samples(root: Path) -> tuple[list[str], bool]:
    """A line for each destination, and whether any did not get the sample."""
    now = time.time()
    sample = Alert(
        id=f"sample {now:.3f}",
        kind="sample",
        subject="alto alert --test",
        text="A sample of the alerts of the ALTo pipeline: nothing has happened",
        time=iso_time(now),
        link=dagster_address(),
    )
    lines, failed = [], False
    for destination in read_alerts(root).destinations:
        try:
            send(destination, sample)
            lines.append(f"{destination.name}: sent")
        except DeliveryFailed as error:
            lines.append(f"{destination.name}: {error}")
            failed = True
    return lines or who_is_told(root), failed
