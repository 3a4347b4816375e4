"""The Dagster assets and their checks, grouped by phase. Keys, dependencies and partitions come from dvc.yaml."""
