"""Decisions about champions, noted at the version they are about: whoever reads the registry sees when and why.

Promotions by Dagster, by `alto promote`, here or on another machine, are all noted this way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

What = Literal["promoted", "refused", "rolled_back"]
TAG = "decision."
LONGEST_REASON = 1000  # characters


@dataclass(frozen=True, kw_only=True)
class Noted:
    """time: ISO 8601."""

    version: str
    what: What
    time: str
    reason: str


def decision_tag(version: Any, what: What, reason: str) -> tuple[str, str] | None:
    """The tag (name and value) that a version is to get; None where it says so already of a refusal."""
    known = next((noted.reason for noted in noted_at(version) if noted.what == what), None)
    short = " ".join(reason.split())[:LONGEST_REASON]
    if what == "refused" and known == short:
        return None
    return TAG + what, f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {short}"


def noted_at(version: Any) -> Iterator[Noted]:
    for what in get_args(What):
        if value := version.tags.get(TAG + what):
            time, _, reason = value.partition(" ")
            yield Noted(version=str(version.version), what=what, time=time, reason=reason)
