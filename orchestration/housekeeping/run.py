"""Look at every place, say what may go and, where asked to, delete it. See docs/housekeeping.md for the races."""

import time
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from data_contracts.errors import InputError, first_line
from jobs.runner.stage_lock import StageLock
from orchestration.housekeeping.dagster_runs import DagsterRuns
from orchestration.housekeeping.dvc_cache import DvcCache
from orchestration.housekeeping.mlflow_models import MlflowModels
from orchestration.housekeeping.part import LeftOut, Part
from orchestration.housekeeping.rules import Verdict, judge
from orchestration.housekeeping.settings import Retention, read_retention
from orchestration.housekeeping.staged_jobs import StagedJobs
from orchestration.housekeeping.table import HousekeepingTable, lines_of
from orchestration.housekeeping.work_folders import WorkFolders

HOUSEKEEPING = "housekeeping"


def keep_house(
    root: Path, instance: dg.DagsterInstance, *, delete: bool, now: float | None = None
) -> HousekeepingTable:
    """What is old and nothing refers to. delete: and delete it. now: seconds since the epoch.

    `keep_house(root, instance, delete=False)` is the dry run that the benchmark of a year times. It changes nothing,
    and waits for DVC's lock only, where there are work folders. Raises InputError where infra/retention.yaml is wrong.
    """
    retention = read_retention(root)
    now = time.time() if now is None else now
    verdicts: list[Verdict] = []
    left_out: list[str] = []
    with ExitStack() as locks:
        if delete:
            locks.enter_context(StageLock(root, HOUSEKEEPING))
        for part in parts(root, instance, retention, now):
            try:
                verdicts += clean(part, retention.grace_days, now, delete=delete)
            except LeftOut as reason:
                left_out.append(str(reason))
            except (InputError, OSError, SQLAlchemyError) as error:
                left_out.append(f"{type(part).__name__}: {first_line(error)}")
    return HousekeepingTable(deleted=delete, lines=tuple(lines_of(verdicts)), left_out=tuple(left_out))


def parts(root: Path, instance: dg.DagsterInstance, retention: Retention, now: float) -> list[Part]:
    """What is looked at first refers to what is looked at later."""
    models = MlflowModels(root, retention)
    return [
        DagsterRuns(instance, retention),
        models,
        WorkFolders(root, retention),
        StagedJobs(root, retention),
        DvcCache(root, retention, models, now),
    ]


def clean(part: Part, grace_days: float, now: float, *, delete: bool) -> list[Verdict]:
    """Verdicts on one place. What is deleted was looked at under the same lock. Raises LeftOut."""
    with ExitStack() as locks:
        if delete:
            locks.enter_context(part.held())
        verdicts = judge(part.find(), part.rules, grace_days, now)
        if delete and (keys := [verdict.found.key for verdict in verdicts if verdict.removed]):
            part.remove(keys)
    return verdicts
