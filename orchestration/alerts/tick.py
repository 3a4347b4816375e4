"""One look at what happened, and one try to tell it. Nothing here fails or delays a run."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import dagster as dg

from data_contracts.errors import InputError
from orchestration.alerts.alert import Alert
from orchestration.alerts.conditions import look_at_ages, look_at_orphans
from orchestration.alerts.delivery import DeliveryFailed, send
from orchestration.alerts.failed_runs import look_at_runs
from orchestration.alerts.settings import SETTINGS_FILE, Alerts, read_alerts
from orchestration.alerts.state import Pending, State, forget, keep, load
from orchestration.automation.settings import read_automation
from orchestration.launching.interface import LaunchFailed
from orchestration.launching.orphans import launchers_in_use, orphans

DAYS_TRIED = 7
SECONDS_A_DAY = 86400

Look = Callable[[State], tuple[list[Alert], State]]


def tell(root: Path, instance: dg.DagsterInstance, now: float) -> Iterator[str]:
    """Lines about what was told and what was not. Raises InputError where the settings are wrong.

    What was found is kept before it is sent, and what was sent is marked at once: a process that dies in between loses
    nothing, and sends again what it was just sending. now: seconds since the epoch.
    """
    settings = read_alerts(root)
    if not settings.destinations:
        forget(instance)
        yield f"{SETTINGS_FILE} names nobody to be told"
        return
    state = load(instance)
    unreachable: set[str] = set()
    # What is found here is sent before the registry is asked, which may be away and answer late.
    for looks in (looks_here(root, instance, now), [look_at_registry(root)]):
        for look in looks:
            try:
                found, state = look(state)
            except (InputError, LaunchFailed) as error:
                yield str(error)
                continue
            state = add(state, found, settings, now)
            keep(instance, state)
        state = yield from deliver(instance, state, settings, unreachable, now)


def looks_here(root: Path, instance: dg.DagsterInstance, now: float) -> list[Look]:
    automation = read_automation(root)
    return [
        lambda state: look_at_runs(instance, state, automation.retrying.times),
        lambda state: look_at_ages(instance, state, automation.freshness_days, now),
        lambda state: look_at_orphans(
            state, [job for launcher in launchers_in_use(root) for job in orphans(launcher, root)], now
        ),
    ]


def look_at_registry(root: Path) -> Look:
    def look(state: State) -> tuple[list[Alert], State]:
        from orchestration.alerts.decisions import look_at_decisions
        from orchestration.promotion.champion import Registry

        return look_at_decisions(state, Registry(root).decisions())

    return look


def add(state: State, alerts: list[Alert], settings: Alerts, now: float) -> State:
    """With each alert for each destination that wants its kind."""
    new = [
        Pending(alert=alert, destination=destination.name, since=now)
        for alert in alerts
        for destination in settings.destinations
        if alert.kind in destination.kinds
    ]
    return state.model_copy(update={"pending": (*state.pending, *new)})


def deliver(
    instance: dg.DagsterInstance, state: State, settings: Alerts, unreachable: set[str], now: float
) -> Generator[str, None, State]:
    """Send what is pending, in order. A destination that fails is left alone until the next tick."""
    destinations = {destination.name: destination for destination in settings.destinations}
    for pending in state.pending:
        name, text = pending.destination, pending.alert.text
        if name in unreachable:
            continue
        if name in destinations and now - pending.since <= DAYS_TRIED * SECONDS_A_DAY:
            try:
                send(destinations[name], pending.alert)
                yield f"{name} got: {text}"
            except DeliveryFailed as error:
                unreachable.add(name)
                waiting = sum(one.destination == name for one in state.pending)
                yield f"{name}: {error}; {waiting} to be sent, tried again at the next tick"
                continue
        else:
            yield f"{name} never gets, after {DAYS_TRIED} days or as nobody of that name is left: {text}"
        state = state.model_copy(
            update={"pending": tuple(one for one in state.pending if one is not pending)}
        )
        keep(instance, state)
    return state
