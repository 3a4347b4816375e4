"""Job specs for tests."""

from pathlib import Path
from typing import Any

from jobs.runner.job_spec import JobSpec


def job_spec(stage: str, work: Path, **changes: Any) -> JobSpec:
    """A job without partition, parameters or inputs but for what is changed; not written."""
    values = {
        "partition": None,
        "partition_items": (),
        "profile": "smoke",
        "fingerprint": "0" * 32,
        "parameters": {},
        "seed": 7,
        "inputs": {},
        "input_hashes": {},
    }
    return JobSpec.model_validate({**values, **changes, "stage": stage, "work": work})
