"""`infra/automation.yaml`: when the pipeline acts by itself."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from data_contracts.errors import InputError
from jobs.runner.lineage import read_yaml

SETTINGS_FILE = Path("infra/automation.yaml")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NewData(_Section):
    seconds_between_looks: PositiveInt = Field(
        description="of the sensors that look for new shards and data sets"
    )
    settled_seconds: int = Field(
        ge=0,
        description="a file is taken when it has not changed for so long, for it may still be being copied",
    )


class Retraining(_Section):
    cron: str = Field(description="when to retrain if anything changed")
    time_zone: str = Field(description="of `cron`")
    new_rows: PositiveInt | None = Field(
        description="retrain at once when so many accepted rows (masks and referring records) have not been trained on;"
        " null: only by `cron`"
    )
    from_champion: bool = Field(
        description="a retraining that is due starts from the champion's weights; it waits until there is a champion"
    )


class Retrying(_Section):
    times: int = Field(ge=0, description="how often a failed run is tried again")
    after_minutes: int = Field(ge=0, description="from its end to the next try")


class Age(_Section):
    """warn, fail: days since an asset was last materialized, after which it is shown as ageing and as too old."""

    warn: PositiveInt
    fail: PositiveInt

    @model_validator(mode="after")
    def _warned_before(self) -> "Age":
        if self.warn >= self.fail:
            raise ValueError("`warn` must be less than `fail`")
        return self


class Automation(_Section):
    """new_data: when to look for it. retraining: when it is due. retrying: of failed runs."""

    new_data: NewData
    retraining: Retraining
    retrying: Retrying
    freshness_days: dict[str, Age] = Field(description="asset -> when it is shown as ageing, and as too old")


def read_automation(root: Path) -> Automation:
    """Raises InputError naming each wrong value."""
    try:
        return Automation.model_validate(read_yaml(root / SETTINGS_FILE))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(f"{SETTINGS_FILE}: {wrong}") from error
