"""Orders and settings for tests of the Kubernetes launcher."""

from pathlib import Path
from typing import Any

from jobs.runner.job_spec import Needs
from orchestration.launching.interface import JobOrder
from orchestration.launching.kubernetes.settings import KubernetesSettings
from tests.jobs.runner.specs import job_spec

FINGERPRINT = "0123456789abcdef0123456789abcdef"


def settings(root: Path, **changes: Any) -> KubernetesSettings:
    values = {
        "namespace": "alto",
        "image": "registry.test/alto:1.0-cuda",
        "volumes": [{"claim": "alto-work", "path": str(root)}],
        "seconds_between_looks": 0.01,
    }
    return KubernetesSettings.model_validate(values | changes)


def order(root: Path, environment: dict[str, str] | None = None, **changes: Any) -> JobOrder:
    values = {
        "stage": "tokenizer_stage1",
        "work": root / ".work" / "tokenizer_stage1" / FINGERPRINT,
        "profile": "paper",
        "fingerprint": FINGERPRINT,
        "launcher": "kubernetes",
        "needs": Needs(gpus=8, cpus=64, memory_gb=512, hours=48),
        "processes": 8,
    }
    spec = job_spec(**(values | changes))
    spec.work.mkdir(parents=True, exist_ok=True)
    return JobOrder.of(spec, environment or {})


TWO_NODES = {"needs": Needs(gpus=8, nodes=2, cpus=64, memory_gb=512, hours=48)}
