"""Whether prepared data is like that the champion was trained on.

The champion's data is named by a file that only promotion writes. No stage reads it, or each promotion would
make all prepared data stale: the check is made where a result is shown, when an asset is materialized and by
`alto sync`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from data_contracts.errors import InputError
from data_contracts.statistics import STATISTICS_FILE, DataStatistics, Drift, DriftLimits, compare
from jobs.runner.context import JobConfig
from jobs.runner.layout import StageAddress, output_folder
from jobs.runner.lineage import Lineage, read_yaml
from jobs.runner.worker import parse_config

CHAMPION_DATA_FILE = Path("infra/champion_data.json")
TRAINING_DATA = ("prepare_sa1b", "prepare_referring")
DRIFT = "drift"  # the check, and the section of params.yaml with its limits


AnyModel = TypeVar("AnyModel", bound=BaseModel)


class PinnedData(BaseModel):
    """One partition, as the champion was trained on it."""

    data_version: str
    statistics: DataStatistics


class DriftConfig(DriftLimits, JobConfig):
    """The section of params.yaml."""


class ChampionData(BaseModel):
    """partitions: address -> its data."""

    profile: str
    partitions: dict[str, PinnedData]


def with_drift(
    lineage: Lineage, address: StageAddress, report: Mapping[str, Any], result: Path | None = None
) -> dict[str, Any]:
    """A stage's report and, for data that models are trained on, the check `drift`.

    result: folder of a result that is not in its place, because it was rejected.
    """
    if address.stage not in TRAINING_DATA:
        return dict(report)
    return {**report, "checks": [*report["checks"], drift_check(lineage, address, result)]}


def drift_check(lineage: Lineage, address: StageAddress, result: Path | None = None) -> dict[str, Any]:
    """The check as a report holds it. It passes, and says so, where there is nothing to compare with.

    A file that cannot be read fails it, and nothing else: the data itself is recorded.
    """
    try:
        return _compared(lineage, address, result)
    except InputError as error:
        return _check(False, str(error))


def _compared(lineage: Lineage, address: StageAddress, result: Path | None) -> dict[str, Any]:
    pinned, missing = _pinned(lineage, address)
    now = read_statistics(lineage.root / (result or output_folder(lineage.profile, address)))
    if pinned is None or now is None:
        return _check(True, missing or f"this version has no {STATISTICS_FILE}")
    section = read_yaml(lineage.root / "params.yaml").get(DRIFT, {})
    found = compare(pinned.statistics, now, parse_config(DriftConfig, DRIFT, section))
    beyond = [drift for drift in found if not drift.within]
    of = f"of version {pinned.data_version}, which the champion was trained on"
    if not beyond:
        return _check(True, f"{len(found)} figures are within limits of those {of}", found)
    return _check(False, f"{'; '.join(map(_said, beyond))}: beyond limits of those {of}", found)


def read_statistics(result: Path) -> DataStatistics | None:
    """Of the data in a folder; None where it is not here."""
    path = result / STATISTICS_FILE
    return _read(path, DataStatistics, "prepare it again") if path.exists() else None


def _pinned(lineage: Lineage, address: StageAddress) -> tuple[PinnedData | None, str]:
    """What the champion was trained on, or why there is nothing to compare with."""
    path = lineage.root / CHAMPION_DATA_FILE
    if not path.exists():
        return None, "nothing is pinned: there is no champion whose data is known"
    champion = _read(path, ChampionData, "run `alto promote`")
    if champion.profile != lineage.profile:
        return None, f"nothing is pinned: the champion was trained under profile {champion.profile}"
    pinned = champion.partitions.get(str(address))
    return pinned, "" if pinned else "nothing is pinned: the champion was not trained on this partition"


def _read(path: Path, model: type[AnyModel], remedy: str) -> AnyModel:
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path}: {error.error_count()} wrong fields; {remedy}") from error


def _check(passed: bool, reason: str, found: Sequence[Drift] = ()) -> dict[str, Any]:
    table = [
        {
            "figure": drift.figure,
            "old": _number(drift.old),
            "new": _number(drift.new),
            "change": _number(drift.change),
            "limit": _number(drift.limit),
            "within": drift.within,
        }
        for drift in found
    ]
    details = {"figures": table} if table else {}
    return {"name": DRIFT, "passed": passed, "blocking": False, "reason": reason, "details": details}


def _said(drift: Drift) -> str:
    return (
        f"{drift.figure} {_number(drift.old)} → {_number(drift.new)} "
        f"(change {_number(drift.change)}, limit {_number(drift.limit)})"
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def champion_data(lineage: Lineage, versions: Mapping[StageAddress, str]) -> str:
    """Text of CHAMPION_DATA_FILE for a champion that was trained on these versions of the data that is here."""
    partitions = {
        str(address): PinnedData(data_version=version, statistics=statistics)
        for address, version in sorted(versions.items())
        if address.stage in TRAINING_DATA
        and (statistics := read_statistics(lineage.root / output_folder(lineage.profile, address)))
    }
    content = ChampionData(profile=lineage.profile, partitions=partitions).model_dump()
    return json.dumps(content, indent=1) + "\n"
