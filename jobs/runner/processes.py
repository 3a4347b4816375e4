"""Several processes of one job, as `torchrun` starts them. The first one (rank 0) writes results and records."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.errors import InputError

if TYPE_CHECKING:
    from jobs.runner.job_spec import JobSpec


def launched_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_of_this_node() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launched_rank() -> int:
    return int(os.environ.get("RANK", "0"))


def end_with_launcher() -> None:
    """Let the system stop this process when torchrun is killed: it starts each process in a session of its own,
    where a killed run would otherwise go on writing beside the one that resumes it."""
    if launched_processes() > 1:
        end_with_parent()


def end_with_parent() -> None:
    """Let the system kill this process when the one that started it has died."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


@contextmanager
def joined_processes() -> Iterator[None]:
    """Inside, torch.distributed connects what torchrun started; left when all have come to the end.

    For a single process, and inside itself, nothing happens.
    """
    if launched_processes() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    from alto_models.training.processes import communication_backend

    if dist.is_initialized():
        yield
        dist.barrier()
        return
    end_with_launcher()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(communication_backend())
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def announce(job: Path | None) -> None:
    """Tell the other processes which job the first one begins, None for no further one."""
    if launched_processes() > 1:
        _broadcast(str(job) if job else None)


def announced() -> Path | None:
    """The job that the first process begins; waits for it."""
    path = _broadcast(None)
    return Path(path) if path else None


def _broadcast(text: str | None) -> str | None:
    import torch.distributed as dist

    box = [text]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def scratch_folder(spec: "JobSpec") -> Iterator[Path]:
    """Where a process other than the first writes what only the first one keeps; with the curves so far."""
    folder = spec.work / f"process_{launched_rank()}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "output").mkdir(parents=True)
    curves = spec.state / "metrics.jsonl"
    if curves.exists():
        shutil.copy(curves, folder / curves.name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def worker_arguments(spec: "JobSpec") -> list[str]:
    """For Python or torchrun: what does the job's work."""
    return ["-m", "jobs.runner.worker", str(spec.path)]


def require_this_machine(spec: "JobSpec") -> None:
    """Raise InputError where the job needs more than launcher local has: another node, or GPUs that are not here."""
    needs = spec.needs
    if needs.nodes > 1:
        problem = f"{needs.nodes} nodes, and launcher local has this machine alone"
    elif needs.gpus and needs.gpus > (here := gpus_of_this_machine()):
        problem = f"{needs.gpus} GPUs, and launcher local has the {here} of this machine"
    else:
        return
    raise InputError(
        f"resources.needs.{spec.stage}: {problem}: choose slurm or kubernetes as resources.launcher, or ask for less"
    )


def gpus_of_this_machine() -> int:
    """As the driver lists them; torch, which could say, takes seconds to import."""
    if (command := shutil.which("nvidia-smi")) is None:
        return 0
    listed = subprocess.run([command, "--list-gpus"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def launch_command(spec: "JobSpec", worker: Sequence[str] = ()) -> list[str]:
    """How to start the processes of a job on this machine. Raises InputError where it needs more than that."""
    require_this_machine(spec)
    worker = worker or worker_arguments(spec)
    if spec.processes == 1:
        return [sys.executable, *worker]
    options = ["--standalone", "--nproc-per-node", str(spec.processes)]
    return [sys.executable, "-m", "jobs.runner.torchrun", *options, *worker]
