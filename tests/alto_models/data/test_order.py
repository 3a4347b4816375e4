"""The order of training samples: each once an epoch, whoever reads them and wherever they begin."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_models.data.order import SampleOrder
from alto_models.data.workers import part_positions

group_sizes = st.lists(st.integers(1, 9), min_size=1, max_size=30)
some = settings(max_examples=60, deadline=None)


@some
@given(group_sizes, st.integers(1, 12), st.integers(1, 7), st.integers(0, 3))
def test_each_epoch_has_every_sample_once(sizes: list[int], lanes: int, window: int, seed: int) -> None:
    order = SampleOrder(sizes, lanes, seed, window)
    assert len(order) == sum(sizes)
    expected = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    for epoch in range(3):
        places = [order.at(epoch * len(order) + index) for index in range(len(order))]
        assert sorted(places) == expected


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def epoch_of(seed: int, epoch: int) -> tuple[tuple[int, int], ...]:
        order = SampleOrder([4] * 10, lanes=4, seed=seed)
        return tuple(order.at(epoch * 40 + index) for index in range(40))

    assert len({epoch_of(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_samples_are_mixed(lanes: int) -> None:
    """Neighbours in the files are no neighbours in training, and a step has rows of different row groups."""
    order = SampleOrder([32] * 60, lanes=lanes, seed=5)
    row_of = np.array([place.group * 32 + place.row for place in map(order.at, range(len(order)))])
    assert (np.abs(np.diff(row_of)) == 1).mean() < 0.05
    assert abs(np.corrcoef(row_of, np.arange(len(row_of)))[0, 1]) < 0.35
    groups = row_of[: len(row_of) // lanes * lanes].reshape(-1, lanes) // 32
    assert np.mean([len(set(step)) for step in groups]) > 0.9 * lanes


@some
@given(group_sizes, st.integers(1, 6), st.integers(1, 5), st.integers(0, 2))
def test_a_window_names_the_row_groups_of_its_samples(
    sizes: list[int], lanes: int, window: int, seed: int
) -> None:
    order = SampleOrder(sizes, lanes, seed, window)
    used: dict[tuple[int, int, int], set[int]] = {}
    for position in range(2 * len(order)):
        used.setdefault(order.window(position), set()).add(order.at(position).group)
    for each, groups in used.items():
        assert set(order.groups(each)) == groups  # type: ignore[arg-type]


def test_windows_of_lanes_do_not_begin_together() -> None:
    order = SampleOrder([32] * 100, lanes=8, seed=0)
    windows = np.array([order.window(position).number for position in range(len(order))]).reshape(-1, 8)
    assert (np.diff(windows, axis=0) > 0).sum(axis=1).max() == 1


def test_a_copy_gives_the_same_order() -> None:
    order = SampleOrder([3, 5, 2], lanes=2, seed=1)
    copy = pickle.loads(pickle.dumps(order))
    assert [copy.at(position) for position in range(30)] == [order.at(position) for position in range(30)]


def read_by(ranks: int, workers: int, samples: int, steps: range) -> list[list[list[int]]]:
    """Positions of each step as the processes and their workers read them: step, rank, position."""
    share = samples // ranks
    read = []
    for step in steps:
        first = step * samples
        of_ranks = [range(first + rank * share, first + (rank + 1) * share) for rank in range(ranks)]
        parts = min(max(workers, 1), share)
        read.append([[p for part in part_positions(own, parts) for p in part] for own in of_ranks])
    return read


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_processes_and_workers_share_out_an_epoch(ranks: int, workers: int) -> None:
    """Also where an epoch ends within a step: 1,003 samples in steps of 24."""
    order = SampleOrder([8] * 125 + [3], lanes=24, seed=2)
    epochs, steps = 2, -(-2 * len(order) // 24)
    positions = [p for step in read_by(ranks, workers, 24, range(steps)) for rank in step for p in rank]
    places = [order.at(position) for position in positions]
    for epoch in range(epochs):
        of_epoch = places[epoch * len(order) : (epoch + 1) * len(order)]
        assert len(set(of_epoch)) == len(of_epoch) == len(order)


@some
@given(
    st.sampled_from([1, 2, 3, 8]),
    st.sampled_from([0, 1, 4]),
    st.sampled_from([1, 2, 3, 8]),
    st.sampled_from([0, 1, 4]),
    st.integers(0, 30),
)
def test_what_remains_after_a_stop_is_the_same(
    ranks: int, workers: int, later_ranks: int, later_workers: int, stop: int
) -> None:
    def order_of(ranks: int, workers: int, steps: range) -> list[tuple[int, int]]:
        order = SampleOrder([5, 9, 2] * 8, lanes=24, seed=7)  # each run makes its own
        return [order.at(p) for step in read_by(ranks, workers, 24, steps) for own in step for p in own]

    whole = order_of(1, 0, range(30))
    assert order_of(ranks, workers, range(stop)) == whole[: stop * 24]
    assert order_of(later_ranks, later_workers, range(stop, 30)) == whole[stop * 24 :]


def test_a_process_reads_only_its_own_row_groups() -> None:
    """No row group but those at the borders of stretches is read by two processes in an epoch."""
    order = SampleOrder([32] * 400, lanes=16, seed=3)
    steps = len(order) // 16
    read = [
        {order.at(step * 16 + place).group for step in range(steps) for place in (2 * rank, 2 * rank + 1)}
        for rank in range(8)
    ]
    assert sum(map(len, read)) <= 400 + 16
