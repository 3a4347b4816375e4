"""torchrun for the processes of a job on one machine, with the same arguments; the last one is the job's JSON file.

torchrun itself gives its processes 30 seconds when it is asked to stop, and ends with status 1 whatever happened.
Here they get the time they need for a checkpoint, and the status is that of the job.
"""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.runner.job_spec import JobSpec
from jobs.runner.stopping import STATUS_STOPPED, this_process
from jobs.runner.verdict import forget_stopped, leave_stopped, verdict_status

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main(arguments: list[str]) -> int:
    spec = JobSpec.read(Path(arguments[-1]))
    this_process.listen()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # or torchrun says at length that it sets it
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        with this_process.passed_on(ask_started_processes):
            # Not the signals that ask a job to stop: they are passed on here.
            torchrun(["--signals-to-handle", "SIGINT,SIGHUP,SIGQUIT", *arguments])
    except ChildFailedError as error:
        return status_of(spec, error)
    return 0


def ask_started_processes() -> None:
    import psutil

    started = psutil.Process().children()
    if not started:
        sys.exit(STATUS_STOPPED)
    for process in started:
        process.send_signal(signal.SIGUSR1)


def status_of(spec: JobSpec, error: "ChildFailedError") -> int:
    """Of the job: `error` names the processes that ended first, before torchrun ended the others."""
    for rank, failure in sorted(error.failures.items()):
        how = signal.Signals(-failure.exitcode).name if failure.exitcode < 0 else f"status {failure.exitcode}"
        print(f"process {rank} ended first: {how}", file=sys.stderr)
    if this_process():
        leave_stopped(spec, "asked to stop")
    elif any(failure.exitcode != STATUS_STOPPED for failure in error.failures.values()):
        forget_stopped(spec)  # that of a process which torchrun asked to end, because another one had died
    return verdict_status(spec)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
