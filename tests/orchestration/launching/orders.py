"""Jobs that run a line of Python, for tests of launchers."""

import hashlib
from pathlib import Path

from jobs.runner.job_spec import Needs
from orchestration.launching.interface import JobOrder, job_name
from tests.jobs.runner.specs import job_spec


def order(root: Path, name: str, code: str, needs: Needs | None = None) -> JobOrder:
    """Of the project at `root`. name: of its work folder, and what its fingerprint is made of."""
    spec = job_spec(
        "mask_tokens",
        root / ".work" / "mask_tokens" / name,
        fingerprint=hashlib.md5(name.encode()).hexdigest(),
        needs=needs or Needs(memory_gb=0.5),
    )
    spec.write()
    environment = {"PLANTED": "a 'b' $c"}
    return JobOrder(name=job_name(spec), spec=spec, worker=("-c", code), environment=environment)
