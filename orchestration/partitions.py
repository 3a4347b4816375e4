"""Dagster's partitions, from `partitions.yaml`."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import yaml

from jobs.runner.layout import checked_item
from jobs.runner.lineage import look_up, read_yaml
from jobs.runner.whole_file import write_whole

SA1B_BATCHES = dg.DynamicPartitionsDefinition(name="sa1b_batches")
HEADER = "# What exists to be processed. Batches of SA-1B shards are added by the `new_shards` sensor.\n"


def partitions_definitions(root: Path) -> dict[str, dg.PartitionsDefinition]:
    """Key of a list in `partitions.yaml` -> partitions. SA-1B grows while Dagster runs, the others with the code."""
    partitions = read_yaml(root / "partitions.yaml")
    return {
        "sa1b.batches": SA1B_BATCHES,
        "grpo_sweep.length_weights": dg.StaticPartitionsDefinition(
            look_up(partitions, "grpo_sweep.length_weights")
        ),
        "referring.datasets": dg.StaticPartitionsDefinition(look_up(partitions, "referring.datasets")),
        "benchmark.benchmarks": dg.StaticPartitionsDefinition(look_up(partitions, "benchmark.benchmarks")),
    }


def sa1b_batches(root: Path) -> list[str]:
    return list(look_up(read_yaml(root / "partitions.yaml"), "sa1b.batches"))


def add_missing_batches(root: Path, instance: dg.DagsterInstance) -> None:
    """Make Dagster know every batch of `partitions.yaml`."""
    known = instance.get_dynamic_partitions("sa1b_batches")
    missing = [batch for batch in sa1b_batches(root) if batch not in known]
    if missing:
        instance.add_dynamic_partitions("sa1b_batches", missing)


def add_batch(root: Path, shards: Sequence[str]) -> str:
    """Append a batch with these shards to `partitions.yaml` (atomically) and return its key.

    Raises InputError for a shard name that is not a plain file name.
    """
    for shard in shards:
        checked_item(shard)
    path = root / "partitions.yaml"
    partitions = read_yaml(path)
    batch = f"batch_{len(partitions['sa1b']['batches']):03d}"
    partitions["sa1b"]["batches"].append(batch)
    partitions["sa1b"]["shards"][batch] = list(shards)
    write_whole(path, HEADER + yaml.safe_dump(partitions, sort_keys=False))
    return batch
