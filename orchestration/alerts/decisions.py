"""Alerts of decisions about the champion, read from the registry: whoever decided, and wherever."""

from collections.abc import Sequence

from orchestration.alerts.alert import Alert
from orchestration.alerts.state import State
from orchestration.promotion.champion import ALTOLLM
from orchestration.promotion.history import Noted


def look_at_decisions(state: State, noted: Sequence[Noted]) -> tuple[list[Alert], State]:
    """Decisions that were not noted, or noted at another time, at the last look; none at the first one."""
    now = {f"{one.version} {one.what}": one.time for one in noted}
    new = [one for one in noted if (state.decisions or {}).get(f"{one.version} {one.what}") != one.time]
    alerts = [
        Alert(
            id=f"{ALTOLLM} {one.version} {one.what} {one.time}",
            kind=one.what,
            subject=f"{ALTOLLM} {one.version}",
            text=f"{one.what.replace('_', ' ')}: {one.reason}",
            time=one.time,
        )
        for one in sorted(new, key=lambda one: one.time)
    ]
    return [] if state.decisions is None else alerts, state.model_copy(update={"decisions": now})
