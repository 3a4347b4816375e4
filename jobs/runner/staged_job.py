"""Runs a job on a node that shares no work tree with those who submitted it.

`python -m jobs.runner.staged_job EXCHANGE NAME`, in an environment where this project is installed: clones the
commit, pulls what the job reads from the DVC remote, runs the same worker as everywhere, pushes the output and leaves
its ledger entry in the exchange. Log, Pipes messages, curves and checkpoints go there while it runs; started again
anywhere (requeued), it goes on from the last checkpoint.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dagster_pipes import encode_param
from dvc.repo import Repo

from data_contracts.errors import InputError, JobStopped
from jobs.runner.exchange import SECONDS_UNREACHABLE, Exchange, Unreachable, open_exchange, until_reachable
from jobs.runner.layout import output_folder
from jobs.runner.ledger import InputsMoved, Ledger
from jobs.runner.processes import end_with_parent, launch_command
from jobs.runner.remote_outputs import remote_explained
from jobs.runner.staged_clone import clone
from jobs.runner.staged_order import (
    JOBS,
    ORDER,
    RETURNED,
    Returned,
    ReturnedOutput,
    StagedOrder,
    read_order,
    relocated,
)
from jobs.runner.stopping import STATUS_STOPPED, this_process
from jobs.runner.tracking import SENT_ELSEWHERE
from jobs.runner.verdict import (
    STATUS_NO_EXCHANGE,
    STATUS_STORAGE_LOST,
    STATUS_WRONG_INPUT,
    leave_stopped,
    leave_verdict,
)
from jobs.runner.work_mirror import LOG, MESSAGES, Outbox, StateKeeper

SECONDS_BETWEEN_SENDING = 1.0


def main() -> int:
    """Returns the worker's status, 2 for wrong input, 69 where the storage stayed away, and 77 where the exchange
    refuses the job, so that nothing but this status can be given back."""
    parser = argparse.ArgumentParser(prog="python -m jobs.runner.staged_job", description=__doc__)
    parser.add_argument("exchange", help="s3://BUCKET/PREFIX, or the absolute path of a folder")
    parser.add_argument("name", help="of the job")
    arguments = parser.parse_args()
    this_process.listen()
    try:
        exchange = open_exchange(arguments.exchange)
        mailbox = exchange.below(f"{JOBS}/{arguments.name}")
        content = until_reachable(SECONDS_UNREACHABLE, lambda: mailbox.read(ORDER))
        order = read_order(content, mailbox.url)
        with tempfile.TemporaryDirectory(prefix="alto-", ignore_cleanup_errors=True) as scratch:
            return StagedJob(order, exchange, mailbox, Path(scratch)).run()
    except (InputError, Unreachable) as error:
        print(f"error: {error}", file=sys.stderr)
        return STATUS_NO_EXCHANGE if isinstance(error, InputError) else STATUS_STORAGE_LOST
    except JobStopped:
        return STATUS_STOPPED


@dataclass
class StagedJob:
    """mailbox: the part of the exchange that belongs to this job. scratch: an empty folder."""

    order: StagedOrder
    exchange: Exchange
    mailbox: Exchange
    scratch: Path

    def __post_init__(self) -> None:
        self.root = self.scratch / "project"
        here = relocated(self.order.job, Path(), self.root)
        # The work folder is there before the clone; and seen from the node, there is one work tree.
        self.spec = here.model_copy(update={"work": self.scratch / "work", "work_tree": "shared"})
        self.spec.write()

    def run(self) -> int:
        keeper = StateKeeper(self.mailbox, self.spec.state)
        restored = until_reachable(SECONDS_UNREACHABLE, keeper.restore)
        outbox = Outbox(self.mailbox, self.spec.work)
        with (self.spec.work / LOG).open("ab") as log, sending(outbox, keeper, self.spec.work / LOG):
            of_before = f", with {restored} files of state" if restored else ""
            tell(log, f"{self.spec.address} at commit {self.order.commit}{of_before}")
            status, returned = self._run_reported(log)
        if returned is None:
            until_reachable(SECONDS_UNREACHABLE, keeper.keep)
        until_reachable(SECONDS_UNREACHABLE, outbox.send_growth)
        until_reachable(SECONDS_UNREACHABLE, outbox.send_the_rest)
        if returned is not None:
            content = returned.model_dump_json().encode()
            until_reachable(SECONDS_UNREACHABLE, lambda: self.mailbox.write(RETURNED, content))
        return status

    def _run_reported(self, log: BinaryIO) -> tuple[int, Returned | None]:
        try:
            clone(self.order, self.exchange, self.root)
            self._pull_inputs(log)
            status = self._run_worker(log)
            return status, self._push_output(log) if status == 0 else None
        except (InputError, InputsMoved) as error:
            leave_verdict(self.spec, InputError(str(error)))
            tell(log, f"error: {error}")
            return STATUS_WRONG_INPUT, None
        except Unreachable as error:
            tell(log, f"error: {error}")
            return STATUS_STORAGE_LOST, None
        except JobStopped as stopped:
            leave_stopped(self.spec, str(stopped))
            return STATUS_STOPPED, None

    def _pull_inputs(self, log: BinaryIO) -> None:
        """Raises InputError, also where code, parameters or data are not those of the order."""
        targets = sorted(self.order.ledger)
        if targets:
            tell(log, f"pulling {', '.join(targets)}")
            with chdir(self.root):
                until_reachable(SECONDS_UNREACHABLE, lambda: pull(targets))
        Ledger(self.root).refuse_other_inputs(self.spec)

    def _run_worker(self, log: BinaryIO) -> int:
        worker = subprocess.Popen(
            launch_command(self.spec),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self._environment()},
            preexec_fn=end_with_parent,
        )
        with this_process.passed_on(lambda: worker.send_signal(signal.SIGUSR1)):
            status = worker.wait()
        return 128 - status if status < 0 else status

    def _environment(self) -> dict[str, str]:
        variables = {}
        if "MLFLOW_TRACKING_URI" not in os.environ:
            variables[SENT_ELSEWHERE] = "1"
        if self.order.dagster_run_id:
            variables["ALTO_DAGSTER_RUN_ID"] = self.order.dagster_run_id
        if self.order.pipes is not None:
            variables["DAGSTER_PIPES_CONTEXT"] = encode_param({"data": self.order.pipes})
            variables["DAGSTER_PIPES_MESSAGES"] = encode_param({"path": str(self.spec.work / MESSAGES)})
        return variables

    def _push_output(self, log: BinaryIO) -> Returned:
        address = self.spec.address
        tell(log, f"pushing {address}")
        Ledger(self.root).record(self.spec)
        with chdir(self.root):
            until_reachable(SECONDS_UNREACHABLE, lambda: push(str(address)))
            with Repo() as repo:
                (output,) = repo.stage.collect(str(address))[0].outs
        return Returned(
            stage=str(address),
            fingerprint=self.spec.fingerprint,
            commit=self.order.commit,
            input_hashes=self.spec.input_hashes,
            outs=(
                ReturnedOutput(
                    path=output_folder(self.spec.profile, address).as_posix(),
                    hash="md5",
                    md5=output.hash_info.value,
                    size=output.meta.size,
                    nfiles=output.meta.nfiles,
                ),
            ),
        )


def pull(addresses: list[str]) -> None:
    """From the DVC remote into the work tree that this is run in. Raises InputError or Unreachable."""
    with Repo() as repo, remote_explained(repo):
        repo.pull(targets=addresses)


def push(address: str) -> None:
    with Repo() as repo, remote_explained(repo):
        repo.push(targets=[address])


def tell(log: BinaryIO, line: str) -> None:
    log.write(f"{line}\n".encode())
    log.flush()


@contextmanager
def sending(outbox: Outbox, keeper: StateKeeper, log: Path) -> Iterator[None]:
    """Inside, what the job writes goes to the exchange as it grows, and its log to standard output, too."""
    stop = threading.Event()

    def send_until_stopped() -> None:
        shown, warning = 0, ""
        last_round = False
        while not last_round:
            last_round = stop.wait(SECONDS_BETWEEN_SENDING)
            shown += show(log, shown)
            try:
                outbox.send_growth()
                keeper.keep()
                warning = ""
            except (Unreachable, InputError, OSError) as error:
                # The job goes on, and the next round sends what this one did not.
                if warning != str(error):
                    warning = str(error)
                    print(f"warning: {warning}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=send_until_stopped, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def show(log: Path, start: int) -> int:
    with log.open("rb") as file:
        file.seek(start)
        content = file.read()
    sys.stdout.buffer.write(content)
    sys.stdout.flush()
    return len(content)


if __name__ == "__main__":
    sys.exit(main())
