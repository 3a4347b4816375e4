"""What is told."""

import os
from datetime import UTC, datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

Kind = Literal["run_failed", "check_failed", "too_old", "orphaned_job", "promoted", "refused", "rolled_back"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Alert(BaseModel):
    """One event. id: the same for the same event. text: for people, one line. link: to a page about it."""

    model_config = ConfigDict(frozen=True)

    id: str
    kind: Kind | Literal["sample"]
    subject: str
    text: str
    time: str  # ISO 8601, UTC
    link: str | None = None


def iso_time(seconds: float) -> str:
    """Of seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def dagster_address() -> str:
    """Where people open Dagster."""
    return os.environ.get("ALTO_DAGSTER_URL", "http://127.0.0.1:3000")
