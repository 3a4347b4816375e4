"""How a Dagster run starts a stage's job. The job is the same runner everywhere; only the starting differs."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from jobs.runner.job_spec import JobSpec
from jobs.runner.processes import launch_command
from jobs.runner.stage_lock import StageLock
from jobs.runner.verdict import JobDied, forget_verdict, raise_verdict

SECONDS_TO_STOP = 10
LINES_OF_LOG_SHOWN = 20


class LocalLauncher(dg.ConfigurableResource):
    """Runs the job as a process of this machine.

    The job writes its log to a file and holds the stage lock itself, so it goes on if Dagster dies, and no other
    run of the stage starts until it has ended.
    """

    def launch_for(self, context: dg.AssetExecutionContext) -> Callable[[JobSpec, StageLock], None]:
        def launch(spec: JobSpec, lock: StageLock) -> None:
            with dg.open_pipes_session(
                context=context,
                context_injector=dg.PipesTempFileContextInjector(),
                message_reader=dg.PipesTempFileMessageReader(),
            ) as session:
                environment = {
                    **os.environ,
                    **session.get_bootstrap_env_vars(),
                    "ALTO_DAGSTER_RUN_ID": context.run_id,
                }
                status = run_process(spec, lock, environment)
            raise_for_status(spec, status)

        return launch


def run_process(spec: JobSpec, lock: StageLock, environment: dict[str, str]) -> int:
    """Start the worker in a process group of its own, show its log, and return its exit status."""
    log = log_file(spec)
    forget_verdict(spec)
    with log.open("wb") as file:
        process = subprocess.Popen(
            launch_command(spec),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
    ended = threading.Event()
    follower = threading.Thread(target=follow, args=(log, ended), daemon=True)
    follower.start()
    try:
        return process.wait()
    except BaseException:  # Dagster's way to cancel a run
        stop_group(process)
        raise
    finally:
        ended.set()
        follower.join()


def stop_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def follow(log: Path, ended: threading.Event) -> None:
    """Copy the growing log to standard output, where Dagster's compute log takes it."""
    with log.open(errors="replace") as file:
        while True:
            last_round = ended.wait(0.5)
            sys.stdout.write(file.read())
            sys.stdout.flush()
            if last_round:
                return


def raise_for_status(spec: JobSpec, status: int) -> None:
    """Raise what ended the job; the same exceptions as in the job itself."""
    if status == 0:
        return
    ended = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    try:
        raise_verdict(spec, ended)
    except JobDied as died:
        tail = "\n".join(log_file(spec).read_text(errors="replace").splitlines()[-LINES_OF_LOG_SHOWN:])
        raise dg.Failure(f"{died}. End of its log:\n{tail}") from None


def log_file(spec: JobSpec) -> Path:
    return spec.work / "job.log"
