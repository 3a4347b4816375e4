"""`infra/retention.yaml`: what housekeeping keeps, and whether its Dagster job deletes."""

from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from data_contracts.errors import InputError
from jobs.runner.lineage import read_yaml

SETTINGS_FILE = Path("infra/retention.yaml")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Kept(_Section):
    days: PositiveFloat = Field(description="older than that, it is deleted where nothing refers to it")


class KeptRuns(Kept):
    newest: PositiveInt = Field(
        description="of each job and partition, kept however old: sensors ask them what was tried already"
    )


class KeptObjects(Kept):
    commits: Literal["all", "tips", "none"] = Field(
        description="whose ledgers count beside that of the work tree: of every commit, of the newest commit of each"
        " branch and tag, of none"
    )
    remote: bool = Field(
        description="whether the default remote is cleaned, too; only where no other project or clone pushes to it"
    )


class KeptVersions(Kept):
    newest: NonNegativeInt = Field(description="versions of each model, kept however old")
    past_champions: PositiveInt = Field(
        description="versions that were champion before, kept for `alto promote --rollback`"
    )


class Retention(_Section):
    delete: bool = Field(description="whether the Dagster job `housekeeping` deletes; else it only lists")
    cron: str = Field(description="when it runs, once its schedule is switched on")
    time_zone: str = Field(description="of `cron`")
    grace_days: PositiveFloat = Field(description="what changed within so long is kept, whatever else says")
    dagster_runs: KeptRuns = Field(description="finished runs of Dagster with their events")
    run_logs: Kept = Field(description="standard output and error of Dagster's runs")
    work_folders: Kept = Field(description="checkpoints of jobs whose inputs or parameters are others now")
    rejected_results: Kept = Field(description="the same, where a blocking check refused the result")
    sent_metrics: Kept = Field(description="curves buffered for MLflow, which it has")
    staged_jobs: Kept = Field(description="orders, checkpoints and commits in the exchange")
    dvc_cache: KeptObjects = Field(description="files in DVC's cache that no kept ledger names")
    model_versions: KeptVersions = Field(
        description="registered versions without alias, and their checkpoints"
    )
    deleted_mlflow_runs: Kept = Field(
        description="runs deleted in MLflow, which keeps them until they are purged"
    )

    @model_validator(mode="after")
    def _logs_go_before_their_run(self) -> "Retention":
        if self.run_logs.days > self.dagster_runs.days:
            raise ValueError("run_logs.days must not be more than dagster_runs.days: a run's logs go with it")
        return self


def read_retention(root: Path) -> Retention:
    """Raises InputError naming each wrong value."""
    try:
        return Retention.model_validate(read_yaml(root / SETTINGS_FILE))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(f"{SETTINGS_FILE}: {wrong}") from error
