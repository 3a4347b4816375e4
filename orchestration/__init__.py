"""The Dagster code location, launchers, partitions, schedules, sensors, and the `alto` command."""
