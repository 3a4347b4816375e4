"""Jobs whose nodes do not see this work tree: any launcher, with the order, log and result going through an exchange.

The node runs `jobs.runner.staged_job`; data goes through the DVC remote. What the job leaves in its work folder there
arrives in its work folder here, so that those who watch it see the same files as with a shared work tree.
"""

import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from dagster_pipes import decode_param
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from data_contracts.errors import InputError
from jobs.runner.exchange import SECONDS_UNREACHABLE, Unreachable, open_exchange, until_reachable
from jobs.runner.job_spec import JobSpec
from jobs.runner.ledger import Ledger
from jobs.runner.lineage import read_yaml
from jobs.runner.remote_outputs import require_pushed
from jobs.runner.stage_lock import StageLock
from jobs.runner.staged_clone import committed, offer_bundle
from jobs.runner.staged_order import JOBS, ORDER, RETURNED, StagedOrder, relocated
from jobs.runner.tracking import outbox_of, send, warn
from jobs.runner.whole_file import write_whole
from jobs.runner.work_mirror import CURVES, LOG, MESSAGES, STATE, Inbox
from orchestration.launching.interface import (
    JobHandle,
    JobOrder,
    JobPhase,
    JobStatus,
    Launcher,
    LaunchFailed,
    job_name,
)
from orchestration.launching.job_files import log_file, messages_file

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_UNREACHABLE_AT_START = 60.0  # that we wait for the exchange to take an order
EXCHANGE_LOCK = "exchange"  # held to post an order, for what it refers to must not be deleted meanwhile
RESULT = "result"  # id of a job that has ended and whose result waits in the exchange
ResultT = TypeVar("ResultT")
USER_IN_URL = re.compile(r"^\w+://[^/]*@")


class StagingSettings(BaseModel):
    """`infra/staging/settings.yaml`.

    exchange: s3://BUCKET/PREFIX or the absolute path of a folder, where orders, logs, checkpoints and results pass.
    repository: git URL that nodes clone from; null: the commit goes through the exchange.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exchange: str
    repository: str | None = None

    @field_validator("repository")
    @classmethod
    def _is_no_secret(cls, value: str | None) -> str | None:
        if value is not None and USER_IN_URL.match(value) and not value.startswith("ssh://"):
            raise ValueError(
                "leave out the user name and password: git on the node has credentials of its own"
            )
        return value


def read_settings(root: Path) -> StagingSettings:
    """Raises InputError."""
    path = root / "infra" / "staging" / "settings.yaml"
    try:
        return StagingSettings.model_validate(read_yaml(path))
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


@dataclass
class StagedLauncher:
    """One job's launcher, made of the one that reaches its nodes. Raises InputError for wrong settings, credentials."""

    root: Path
    spec: JobSpec
    inner: Launcher
    _looked: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if self.spec.needs.nodes > 1:
            raise InputError(
                f"resources.needs.{self.spec.stage}: {self.spec.needs.nodes} nodes need a work tree that all see: set"
                " resources.work_tree to shared"
            )
        self._settings = read_settings(self.root)
        self._exchange = open_exchange(self._settings.exchange)
        self._mailbox = self._exchange.below(f"{JOBS}/{job_name(self.spec)}")
        self._inbox = Inbox(self._mailbox, self._growing_files())

    def submit(self, order: JobOrder) -> JobHandle:
        """Raises InputError, too, where the work tree is not committed, or an input not in the remote."""
        staged = self._order(order.environment)
        with StageLock(self.root, EXCHANGE_LOCK):
            patiently(lambda: self._post(staged))
        worker = ("-m", "jobs.runner.staged_job", self._exchange.url, order.name)
        # On a node, one process sees to everything, and starts those that the job trains in.
        spec = order.spec.model_copy(update={"processes": 1})
        return self.inner.submit(replace(order, spec=spec, worker=worker, environment={}))

    def _post(self, order: StagedOrder) -> None:
        self._mailbox.delete([name for name in self._mailbox.names() if not name.startswith(f"{STATE}/")])
        if order.repository is None:
            with tempfile.TemporaryDirectory() as scratch:
                offer_bundle(self.root, order.commit, self._exchange, Path(scratch))
        self._mailbox.write(ORDER, order.model_dump_json().encode())

    def _order(self, environment: Mapping[str, str]) -> StagedOrder:
        commit = committed(self.root)
        entries = Ledger(self.root).entries_read_by(self.spec.address)
        patiently(lambda: require_pushed(self.root, entries))
        return StagedOrder(
            job=relocated(self.spec, self.root, Path()),
            commit=commit,
            repository=self._settings.repository,
            ledger=entries,
            pipes=pipes_context(environment),
            dagster_run_id=environment.get("ALTO_DAGSTER_RUN_ID", ""),
        )

    def find(self, name: str) -> JobHandle | None:
        """Also a job that is over and whose result nobody has taken."""
        live = self.inner.find(name)
        if live is not None or name != job_name(self.spec):
            return live
        returned = patiently(lambda: self._mailbox.read(RETURNED))
        return None if returned is None else JobHandle(name, RESULT, self.spec.work)

    def jobs(self) -> list[JobHandle]:
        return self.inner.jobs()

    def status(self, handle: JobHandle) -> JobStatus:
        status = JobStatus(phase=JobPhase.SUCCEEDED) if handle.id == RESULT else self.inner.status(handle)
        if not status.phase.is_over:
            self._look()
            return status
        try:
            returned = until_reachable(SECONDS_UNREACHABLE, self._take_result)
        except Unreachable as error:
            return JobStatus(phase=JobPhase.UNKNOWN, reason=str(error))
        return JobStatus(phase=JobPhase.SUCCEEDED, nodes=status.nodes) if returned else status

    def cancel(self, handle: JobHandle) -> None:
        if handle.id != RESULT:
            self.inner.cancel(handle)

    def log(self, handle: JobHandle, offset: int) -> bytes:
        return self.inner.log(handle, offset)

    def _look(self) -> None:
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        try:
            self._inbox.receive_growth()
        except Unreachable as error:
            print(f"warning: {error}", flush=True)

    def _take_result(self) -> bool:
        """Bring over what is left, and the result where there is one; then it is here, and no longer there."""
        self._inbox.receive_growth()
        self._inbox.receive_the_rest(self.spec.work)
        content = self._mailbox.read(RETURNED)
        if content is None:
            return self.spec.returned.exists()
        send_to_mlflow(self.spec, self.root)
        write_whole(self.spec.returned, content)
        self._mailbox.delete(self._mailbox.names())
        return True

    def _growing_files(self) -> dict[str, Path]:
        work = self.spec.work
        files = {MESSAGES: messages_file(work), CURVES: work / CURVES}
        # A process of this machine writes its log here itself; that of pods the launcher gets from the cluster.
        return {LOG: log_file(work), **files} if self.spec.launcher == "slurm" else files


def patiently(action: Callable[[], ResultT]) -> ResultT:
    """Raises LaunchFailed where the exchange stays away."""
    try:
        return until_reachable(SECONDS_UNREACHABLE_AT_START, action)
    except Unreachable as error:
        raise LaunchFailed(str(error)) from None


def send_to_mlflow(spec: JobSpec, root: Path) -> None:
    """What the node did not; MLflow being away loses nothing, it is kept and sent later."""
    outbox = outbox_of(spec)
    try:
        send(outbox, root)
    except Exception as error:  # whatever the server or its client raises
        warn(error)


def pipes_context(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What Dagster tells the job through Pipes."""
    encoded = environment.get("DAGSTER_PIPES_CONTEXT")
    return None if encoded is None else decode_param(encoded)["data"]
