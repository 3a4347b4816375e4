"""What a prepared data set is like in numbers, and how far one is from another."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

STATISTICS_FILE = "statistics.json"


class Distribution(BaseModel):
    """quantiles: name ("q10") -> value."""

    model_config = ConfigDict(frozen=True)

    count: int
    mean: float
    quantiles: dict[str, float]


class DataStatistics(BaseModel):
    """distributions: of area_share (of the image), boundary_length (pixels), masks_per_image, expression_length
    (characters), as far as the data set has them. shares: no_target, of the records. categories: name -> share
    of the masks that have one, the most frequent ones."""

    model_config = ConfigDict(frozen=True)

    distributions: dict[str, Distribution]
    shares: dict[str, float]
    categories: dict[str, float]


class DriftLimits(BaseModel):
    """When data is no longer like that the champion was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distributions: float = Field(
        gt=0, description="of a mean or quantile: its change over the mean before, both as absolute values"
    )
    shares: float = Field(gt=0, le=1, description="of a share: its change")
    categories: float = Field(
        gt=0, le=1, description="of categories: half the sum of the changes of their shares"
    )


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One figure, before and now. old, new: None where a data set has no such figure."""

    figure: str
    old: float | None
    new: float | None
    change: float
    limit: float

    @property
    def within(self) -> bool:
        return self.change <= self.limit


def compare(old: DataStatistics, new: DataStatistics, limits: DriftLimits) -> list[Drift]:
    """Every figure of either. What only one of them has is out of every limit."""
    found = []
    for name in sorted({*old.distributions, *new.distributions}):
        before, now = old.distributions.get(name), new.distributions.get(name)
        scale = abs(before.mean) if before else 0.0
        olds, news = (_figures(part) if part else {} for part in (before, now))
        for figure in sorted({*olds, *news}):
            pair = olds.get(figure), news.get(figure)
            found.append(_drift(f"{name} {figure}", *pair, scale, limits.distributions))
    for name in sorted({*old.shares, *new.shares}):
        found.append(_drift(f"share {name}", old.shares.get(name), new.shares.get(name), 1, limits.shares))
    if old.categories or new.categories:
        found += _of_categories(old.categories, new.categories, limits.categories)
    return found


def _figures(distribution: Distribution) -> dict[str, float]:
    return {"mean": distribution.mean, **distribution.quantiles}


def _drift(figure: str, old: float | None, new: float | None, scale: float, limit: float) -> Drift:
    if old is None or new is None:
        change = float("inf")
    elif old == new:
        change = 0.0
    else:
        change = abs(new - old) / scale if scale else float("inf")
    return Drift(figure=figure, old=old, new=new, change=change, limit=limit)


def _of_categories(old: dict[str, float], new: dict[str, float], limit: float) -> Iterator[Drift]:
    """All together, and the one that changed most."""
    changes = {name: abs(new.get(name, 0.0) - old.get(name, 0.0)) for name in sorted({*old, *new})}
    most = max(changes, key=changes.__getitem__)
    yield Drift(
        figure=f"categories (most: {most})",
        old=old.get(most, 0.0),
        new=new.get(most, 0.0),
        change=sum(changes.values()) / 2,
        limit=limit,
    )
