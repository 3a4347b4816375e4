"""The check of GPU health as the prolog of a real Slurm. Needs root and Debian's slurm-wlm and munge."""

import time
from pathlib import Path

import pytest

from tests.services.slurm import slurm

pytestmark = pytest.mark.slow

PROLOG = Path(__file__).parents[2] / "infra" / "slurm" / "prolog.sh"


def test_node_with_a_broken_gpu_is_drained_and_its_job_goes_back_into_the_queue(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text('#!/bin/sh\necho "0, 3, 4"\n')
    # The test cluster counts no GPUs, so what Slurm would say of the job's is said here.
    wrapper = f"#!/bin/sh\nSLURM_JOB_GPUS=0 PATH={tmp_path}:/usr/bin:/bin exec {PROLOG}\n"
    (tmp_path / "prolog").write_text(wrapper)
    for program in ("nvidia-smi", "prolog"):
        (tmp_path / program).chmod(0o755)
    with slurm() as cluster:
        with (cluster.base / "slurm.conf").open("a") as configuration:
            configuration.write(f"Prolog={tmp_path / 'prolog'}\n")
        cluster.command("scontrol", "reconfigure")
        submit = ("sbatch", "--parsable", "--requeue", "--nodelist=n1", "--output=/dev/null", "--wrap=true")
        job = cluster.command(*submit).strip()
        wanted = (
            "drained|alto prolog: GPU 0: 3 uncorrected memory errors since the driver started",
            "PENDING",
        )
        node = ("sinfo", "--noheader", "--nodes=n1", "--partition=cpu", "--format=%T|%E")
        deadline = time.monotonic() + 60
        while (seen := (cluster.command(*node).strip(), cluster.jobs()[job])) != wanted:
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)
