"""What a job is given, and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from jobs.runner.metric_log import MetricLog
from jobs.runner.processes import launched_rank
from jobs.runner.stopping import StopRequest


class JobConfig(BaseModel):
    """Base of every stage's parameters: frozen, and an unknown key is an error."""

    # What is wrong may be a link that should not have been there.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


@dataclass(frozen=True, kw_only=True)
class Check:
    """Verdict on a stage's result. A failed blocking check fails the run: nothing is recorded."""

    name: str
    passed: bool
    reason: str
    blocking: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """Deterministic summary of a stage, written to `report.json` in its output.

    figures: name -> number or short text; shown in Dagster, MLflow and the final table.
    """

    figures: Mapping[str, float | int | str]
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """Where a job reads and writes. `jobs.<stage>.run(config, context)` uses nothing else.

    partition: partition key, None for an unpartitioned stage.
    partition_items: what the key stands for (the shard names of a batch), else empty.
    inputs: stage name -> its output folder (the folder above the partitions for a partitioned stage).
    output: empty folder, renamed into place when the job has succeeded.
    work: folder for checkpoints; it survives a kill and is found again by a run with the same inputs.
    workers: processes that read training data, for each process that trains; 0: a thread of its own.
    copies: stage name -> s3://bucket/prefix with a copy of its output.
    stop: whether the job was asked to end; `deferred` while it can do so with a checkpoint.
    """

    stage: str
    partition: str | None
    partition_items: tuple[str, ...]
    seed: int
    inputs: Mapping[str, Path]
    output: Path
    work: Path
    metric_log: MetricLog
    workers: int = 0
    copies: Mapping[str, str] = field(default_factory=dict)
    stop: StopRequest = field(default_factory=StopRequest)

    def progress(self, total: int, description: str, unit: str, initial: int = 0) -> tqdm:
        """Progress bar with rate and time left; use as a context manager and call `.update(n)`.

        Of several processes the first one shows it.
        """
        return tqdm(
            total=total,
            initial=initial,
            desc=description,
            unit=unit,
            mininterval=0.5,
            dynamic_ncols=True,
            disable=launched_rank() > 0,
        )

    def log_metrics(self, step: int, **values: float) -> None:
        """Add one point to the run's curves (MLflow); never part of the hashed output."""
        self.metric_log.append(step, values)
