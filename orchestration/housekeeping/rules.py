"""What may be deleted, and in which order: pure functions on what was found."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import NamedTuple

SECONDS_A_DAY = 86400.0


class Key(NamedTuple):
    kind: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """Something that could be deleted.

    changed: when it was last changed or used, seconds since the epoch. bytes: None where it is not known.
    needed: who refers to it, "" for nobody. refers_to: what has to stay as long as this stays.
    group: the newest of each group are kept.
    """

    key: Key
    changed: float
    bytes: int | None = None
    needed: str = ""
    refers_to: frozenset[Key] = frozenset()
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Older than that goes, except for the newest of each group."""

    days: float
    newest: int = 0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    found: Found
    removed: bool
    why: str


def judge(found: Sequence[Found], rules: Mapping[str, Rule], grace_days: float, now: float) -> list[Verdict]:
    """A verdict on each thing found, in the order in which it is to be deleted: what refers comes before what it
    refers to, so that an end at any moment leaves nothing that points at air.

    rules: by kind. now: seconds since the epoch. References among the things found must not form a circle.
    """
    newest = _newest(found, rules)
    kept: dict[Key, str] = {}
    for one in found:
        rule, age = rules[one.key.kind], (now - one.changed) / SECONDS_A_DAY
        if one.needed:
            kept[one.key] = one.needed
        elif age < grace_days:
            kept[one.key] = f"changed less than {grace_days:g} days ago"
        elif one.key in newest:
            kept[one.key] = "the newest" if rule.newest == 1 else f"one of the newest {rule.newest}"
        elif age < rule.days:
            kept[one.key] = f"younger than {rule.days:g} days"
    by_key = {one.key: one for one in found}
    _keep_what_is_referred_to(by_key, kept)
    order = TopologicalSorter(
        {key: one.refers_to & by_key.keys() for key, one in by_key.items()}
    ).static_order()
    return [
        Verdict(
            found=by_key[key],
            removed=key not in kept,
            why=kept.get(key) or f"older than {rules[key.kind].days:g} days, nothing refers to it",
        )
        for key in reversed(list(order))
    ]


def _newest(found: Iterable[Found], rules: Mapping[str, Rule]) -> set[Key]:
    groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for one in found:
        groups[one.key.kind, one.group].append(one)
    return {
        one.key
        for (kind, _), members in groups.items()
        for one in sorted(members, key=lambda one: one.changed, reverse=True)[: rules[kind].newest]
    }


def _keep_what_is_referred_to(by_key: Mapping[Key, Found], kept: dict[Key, str]) -> None:
    waiting = list(kept)
    while waiting:
        key = waiting.pop()
        for referred in by_key[key].refers_to & by_key.keys() - kept.keys():
            kept[referred] = f"{key.kind} {key.name} refers to it"
            waiting.append(referred)
