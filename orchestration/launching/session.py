"""A stage's job for a Dagster run, over Dagster Pipes."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.pipes.context import PipesMessageHandler
from dagster_pipes import PipesDefaultMessageWriter, PipesParams

from assets.storage_patience import until_answered
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import project_root
from jobs.runner.stage_lock import StageLock
from orchestration.launching.choice import launcher_for
from orchestration.launching.failures import JobFailed
from orchestration.launching.interface import JobOrder, LaunchFailed
from orchestration.launching.job_files import messages_file
from orchestration.launching.watch import live_job, run_job

SECONDS_BETWEEN_MESSAGES = 0.5


class StageLauncher(dg.ConfigurableResource):
    """Runs a stage's job with the launcher that `resources` names, and shows it in the run while it goes on.

    A job that ended for a reason that passes is started again, `retries` times at most; before the first time after
    `seconds_before_retry`, each time after twice as long. It goes on from its last checkpoint.
    """

    retries: int = 3
    seconds_before_retry: float = 30.0

    def launch_for(self, context: dg.AssetExecutionContext) -> Callable[[JobSpec, StageLock], None]:
        def launch(spec: JobSpec, lock: StageLock) -> None:
            launcher = launcher_for(spec, project_root())
            live = live_job(launcher, spec)
            with dg.open_pipes_session(
                context=context,
                context_injector=dg.PipesEnvContextInjector(),
                message_reader=FollowedMessages(messages_file(spec.work)),
            ) as session:
                environment = {**session.get_bootstrap_env_vars(), "ALTO_DAGSTER_RUN_ID": context.run_id}
                order = JobOrder.of(spec, environment, lock.fileno())
                try:
                    run_job(
                        launcher, order, live, lambda line: until_answered(partial(context.log.info, line))
                    )
                except JobFailed as error:
                    failure = dg.Failure(f"{error}\nEnd of its log:\n{error.failure.log_end}")
                    raise self._again(context, failure, wanted=error.failure.cause.retry) from error
                except LaunchFailed as error:
                    raise self._again(context, dg.Failure(str(error)), wanted=True) from error

        return launch

    def _again(self, context: dg.AssetExecutionContext, failure: dg.Failure, *, wanted: bool) -> Exception:
        """What to raise: the failure, or that the step is to be tried again."""
        if not wanted or context.retry_number >= self.retries:
            return failure
        wait = self.seconds_before_retry * 2**context.retry_number
        until_answered(lambda: context.log.warning(f"{failure.description}\nTrying again in {wait:.0f} s"))
        return dg.RetryRequested(max_retries=self.retries, seconds_to_wait=wait)


class FollowedMessages(dg.PipesMessageReader):
    """Messages of a job that may have been started by an earlier run, and may be started again (requeued).

    They are read from the beginning of the file, which is kept. Dagster expects one beginning and one end, so further
    beginnings are left out, and the last end is told when the session closes.
    """

    expected_writer_count = 1  # the first process of a job

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        closed = threading.Event()
        reader = threading.Thread(target=self._follow, args=(handler, closed), daemon=True)
        reader.start()
        try:
            yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(self.path)}
        finally:
            closed.set()
            reader.join()

    def _follow(self, handler: PipesMessageHandler, closed: threading.Event) -> None:
        offset = 0
        end: Any = None
        while True:
            last_round = closed.wait(SECONDS_BETWEEN_MESSAGES)
            for line in self._complete_lines(offset):
                offset += len(line)
                message = json.loads(line)
                if message["method"] == "closed":
                    end = message
                elif message["method"] != "opened" or not handler.received_opened_message:
                    until_answered(partial(handler.handle_message, message))
            if last_round:
                if end is not None:
                    handler.handle_message(end)
                return

    def _complete_lines(self, offset: int) -> list[bytes]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(offset)
            lines = file.read().splitlines(keepends=True)
        return [line for line in lines if line.endswith(b"\n")]

    def no_messages_debug_text(self) -> str:
        return f"Attempted to read messages from file {self.path}."
