"""Jobs that run a line of Python, for tests of launchers."""

import hashlib
from pathlib import Path

from jobs.runner.job_spec import JobSpec, Needs
from orchestration.launching.interface import JobOrder, job_name


def order(root: Path, name: str, code: str, needs: Needs | None = None) -> JobOrder:
    """Of the project at `root`. name: of its work folder, and what its fingerprint is made of."""
    spec = JobSpec(
        stage="mask_tokens",
        partition=None,
        partition_items=(),
        profile="smoke",
        fingerprint=hashlib.md5(name.encode()).hexdigest(),
        parameters={},
        seed=1,
        needs=needs or Needs(memory_gb=0.5),
        inputs={},
        input_hashes={},
        work=root / ".work" / "mask_tokens" / name,
    )
    spec.write()
    environment = {"PLANTED": "a 'b' $c"}
    return JobOrder(name=job_name(spec), spec=spec, worker=("-c", code), environment=environment)
