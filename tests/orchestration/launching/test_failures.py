"""What ended a job, from what its launcher says and what it wrote last."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.runner.job_spec import JobSpec
from orchestration.launching.failures import Cause, classify
from orchestration.launching.interface import JobPhase, JobStatus
from tests.jobs.runner.specs import job_spec

DIED = JobStatus(phase=JobPhase.FAILED, exit_code=1, reason="ended with status 1", nodes="n1")
GLOO = "[rank0]: RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"

WRITTEN = {
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.": Cause.GPU_OUT_OF_MEMORY,
    "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.28 TiB for an array": Cause.OUT_OF_MEMORY,
    "RuntimeError: [enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory": Cause.OUT_OF_MEMORY,
    f"OSError: [Errno {errno.ENOSPC}] No space left on device: '/work/x.partial'": Cause.DISK_FULL,
    "botocore.exceptions.EndpointConnectionError: Could not connect to the endpoint URL": Cause.STORAGE_LOST,
    "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3384": Cause.COMMUNICATION,
    "[rank1]:[E123 ProcessGroupNCCL.cpp:632] Watchdog caught collective operation timeout": Cause.COMMUNICATION,
    GLOO: Cause.COMMUNICATION,
    f"{GLOO}\n[rank1]: MemoryError": Cause.OUT_OF_MEMORY,
    f"{GLOO}\nprocess 1 ended first: SIGKILL": Cause.KILLED,
    "    raise MemoryError\nValueError: 3 is no length": Cause.BUG,
    "warning: MLflow is not reachable (ConnectTimeoutError)\nKeyError: 'x'": Cause.BUG,
    "": Cause.BUG,
}


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return job_spec("altollm_sft", tmp_path)


@pytest.mark.parametrize("log", WRITTEN)
def test_last_lines_tell_what_happened(spec: JobSpec, log: str) -> None:
    failure = classify(spec, DIED, f"step 1\n{log}\n", stopped=False)
    assert failure.cause is WRITTEN[log]
    assert "\n" not in failure.line
    assert failure.line.startswith("altollm_sft: the job ")
    assert failure.log_end.endswith(log)


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (JobStatus(phase=JobPhase.CANCELLED), Cause.CANCELLED),
        (JobStatus(phase=JobPhase.PREEMPTED), Cause.PREEMPTED),
        (JobStatus(phase=JobPhase.TIMED_OUT), Cause.TIME_LIMIT),
        (JobStatus(phase=JobPhase.OUT_OF_MEMORY), Cause.OUT_OF_MEMORY),
        (JobStatus(phase=JobPhase.NODE_FAILED, nodes="n2"), Cause.NODE_LOST),
        (JobStatus(phase=JobPhase.FAILED, exit_code=-9), Cause.KILLED),
        (JobStatus(phase=JobPhase.FAILED, exit_code=137), Cause.KILLED),
        (JobStatus(phase=JobPhase.FAILED, exit_code=69), Cause.STORAGE_LOST),
        (JobStatus(phase=JobPhase.FAILED, exit_code=77), Cause.NO_EXCHANGE),
    ],
)
def test_the_scheduler_knows_best(spec: JobSpec, status: JobStatus, cause: Cause) -> None:
    assert (
        classify(spec, status, "KeyError: 'x'" if status.exit_code is None else "", stopped=False).cause
        is cause
    )


def test_a_job_that_never_ran_could_not_be_started(spec: JobSpec) -> None:
    reason = "image registry.example/alto:9 cannot be pulled"
    failure = classify(spec, JobStatus(phase=JobPhase.FAILED, reason=reason), "", stopped=False)
    assert failure.cause is Cause.NOT_STARTED
    assert reason in failure.line


def test_a_job_that_its_scheduler_has_forgotten_is_tried_again_unless_its_log_says_why_it_ended(
    spec: JobSpec,
) -> None:
    forgotten = JobStatus(phase=JobPhase.FORGOTTEN)
    causes = {
        log: classify(spec, forgotten, log, stopped=False).cause for log in ("", "step 1", "KeyError: 'x'")
    }
    assert causes == {"": Cause.FORGOTTEN, "step 1": Cause.FORGOTTEN, "KeyError: 'x'": Cause.BUG}


def test_a_job_that_stopped_as_asked_is_no_error(spec: JobSpec) -> None:
    failure = classify(spec, DIED, "", stopped=True)
    assert failure.cause is Cause.STOPPED
    assert failure.cause.retry


def test_what_another_attempt_cannot_mend_is_not_tried_again() -> None:
    assert {cause for cause in Cause if not cause.retry} == {
        Cause.CANCELLED,
        Cause.OUT_OF_MEMORY,
        Cause.GPU_OUT_OF_MEMORY,
        Cause.DISK_FULL,
        Cause.NO_EXCHANGE,
        Cause.NOT_STARTED,
        Cause.BUG,
    }


REAL = {
    "bytearray(10**15)": Cause.OUT_OF_MEMORY,
    "import numpy; numpy.ones(10**14)": Cause.OUT_OF_MEMORY,
    "import torch; torch.save(torch.ones(10**6), '/dev/full')": Cause.DISK_FULL,
    "import torch.distributed as d; from datetime import timedelta as t; "
    "d.init_process_group('gloo', init_method='tcp://127.0.0.1:1', rank=1, world_size=2, timeout=t(seconds=1))": (
        Cause.COMMUNICATION
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("code", REAL)
def test_what_libraries_really_say(spec: JobSpec, code: str) -> None:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    status = JobStatus(phase=JobPhase.FAILED, exit_code=ended.returncode)
    assert ended.returncode != 0
    assert classify(spec, status, ended.stderr, stopped=False).cause is REAL[code], ended.stderr
