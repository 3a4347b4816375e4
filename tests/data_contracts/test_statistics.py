"""How far one data set is from another, figure by figure."""

from typing import Any

import pytest

from data_contracts.statistics import DataStatistics, Distribution, DriftLimits, compare

LIMITS = DriftLimits(distributions=0.25, shares=0.05, categories=0.1)


def statistics(mean: float = 10.0, no_target: float = 0.5, **categories: float) -> DataStatistics:
    quantiles = {"q10": mean / 10, "q50": mean, "q90": 2 * mean}
    return DataStatistics(
        distributions={"boundary_length": Distribution(count=5, mean=mean, quantiles=quantiles)},
        shares={"no_target": no_target},
        categories=categories or {"cup": 0.5, "plate": 0.5},
    )


def beyond(old: DataStatistics, new: DataStatistics) -> dict[str, tuple[Any, Any, float]]:
    found = compare(old, new, LIMITS)
    return {
        drift.figure: (drift.old, drift.new, round(drift.change, 6)) for drift in found if not drift.within
    }


def test_equal_data_has_not_drifted() -> None:
    assert beyond(statistics(), statistics()) == {}
    assert beyond(statistics(mean=0.0), statistics(mean=0.0)) == {}
    assert len(compare(statistics(), statistics(), LIMITS)) == 6


def test_changes_up_to_the_limit_are_within() -> None:
    assert beyond(statistics(), statistics(mean=11.2, no_target=0.54, cup=0.6, plate=0.4)) == {}


@pytest.mark.parametrize(
    ("new", "found"),
    [
        (statistics(mean=13), {"boundary_length mean": (10, 13, 0.3), "boundary_length q50": (10, 13, 0.3),
                               "boundary_length q90": (20, 26, 0.6)}),
        (statistics(no_target=0.4), {"share no_target": (0.5, 0.4, 0.1)}),
        (statistics(cup=0.3, plate=0.5, fork=0.2), {"categories (most: cup)": (0.5, 0.3, 0.2)}),
        (statistics(plate=1.0), {"categories (most: cup)": (0.5, 0.0, 0.5)}),
    ],
)  # fmt: skip
def test_changes_beyond_a_limit_are_named(new: DataStatistics, found: dict[str, Any]) -> None:
    assert beyond(statistics(), new) == found


def test_what_only_one_of_them_has_is_beyond_every_limit() -> None:
    nothing = DataStatistics(distributions={}, shares={}, categories={})
    for old, new in ((statistics(), nothing), (nothing, statistics())):
        assert {figure for figure, (_, _, change) in beyond(old, new).items() if change == float("inf")} == {
            "boundary_length mean",
            "boundary_length q10",
            "boundary_length q50",
            "boundary_length q90",
            "share no_target",
        }
    assert beyond(statistics(mean=0.0), statistics(mean=1.0))["boundary_length mean"][2] == float("inf")
