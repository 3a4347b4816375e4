"""`infra/alerts.yaml`: who is told of what. Addresses and passwords are in the environment; this names variables."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator
from pydantic_core import ErrorDetails

from data_contracts.errors import InputError
from jobs.runner.lineage import read_yaml
from orchestration.alerts.alert import KINDS, Kind

SETTINGS_FILE = Path("infra/alerts.yaml")

# What is wrong may be an address or a password that should not have been there: it is never shown.
VariableName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Destination(_Section):
    kinds: tuple[Kind, ...] = Field(default=KINDS, min_length=1, description="of alerts that it gets")


class Webhook(_Destination):
    url_variable: VariableName = Field(description="variable with the address")

    @property
    def name(self) -> str:
        return f"webhook {self.url_variable}"


class Email(_Destination):
    host_variable: VariableName = Field(description="variable with the name of the SMTP server")
    port: PositiveInt = Field(default=587, description="of the server")
    starttls: bool = Field(default=True, description="encrypt, and refuse a server that cannot")
    sender_variable: VariableName = Field(description="variable with the address it is from")
    to_variable: VariableName = Field(
        description="variable with the addresses it goes to, commas between them"
    )
    user_variable: VariableName | None = Field(
        default=None, description="variable with the user to log in as"
    )
    password_variable: VariableName | None = Field(default=None, description="variable with the password")

    @model_validator(mode="after")
    def _log_in_is_whole_and_hidden(self) -> "Email":
        if (self.user_variable is None) != (self.password_variable is None):
            raise ValueError("`user_variable` and `password_variable` belong together")
        if self.user_variable is not None and not self.starttls:
            raise ValueError("a password is not sent without `starttls`")
        return self

    @property
    def name(self) -> str:
        return f"email {self.to_variable}"


Destination = Webhook | Email


class Alerts(_Section):
    webhooks: tuple[Webhook, ...] = Field(default=(), description="each gets a POST with JSON")
    emails: tuple[Email, ...] = Field(default=(), description="each is a server and whom it sends to")

    @model_validator(mode="after")
    def _each_once(self) -> "Alerts":
        names = [one.name for one in self.destinations]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is there twice")
        return self

    @property
    def destinations(self) -> tuple[Destination, ...]:
        return (*self.webhooks, *self.emails)


def read_alerts(root: Path) -> Alerts:
    """Raises InputError naming each wrong value, but not showing it."""
    try:
        return Alerts.model_validate(read_yaml(root / SETTINGS_FILE) or {})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {_said(one)}" for one in error.errors())
        raise InputError(f"{SETTINGS_FILE}: {wrong}") from None


def _said(one: ErrorDetails) -> str:
    if one["type"] == "string_pattern_mismatch":
        return "is to be the name of a variable of the environment (capitals, digits, _), not its value"
    return one["msg"]
