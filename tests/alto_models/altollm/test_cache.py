"""A cache with room holds what the cache of transformers holds."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

from alto_models.altollm.cache import ROOM, RoomyLayer

MOVES = st.one_of(
    st.tuples(st.just("update"), st.sampled_from([1, 2, ROOM - 1, ROOM + 1])),
    st.tuples(st.just("repeat"), st.integers(1, 3)),
    st.tuples(st.just("select"), st.integers(1, 3)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(MOVES, min_size=1, max_size=10), st.integers(0, 1000))
def test_it_holds_what_a_growing_cache_holds(moves: list[tuple[str, int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ours, plain, rows = RoomyLayer(), DynamicLayer(), 2
    for move, number in [("update", 3), *moves]:
        if move == "update":
            keys, values = (torch.rand(rows, 2, number, 4, generator=generator) for _ in range(2))
            for found, expected in zip(ours.update(keys, values), plain.update(keys, values), strict=True):
                assert torch.equal(found, expected)
        elif move == "repeat" and rows * number < 12:
            ours.batch_repeat_interleave(number)
            plain.batch_repeat_interleave(number)
            rows *= number
        elif move == "select":
            chosen = torch.randint(0, rows, (number,), generator=generator)
            ours.batch_select_indices(chosen)
            plain.batch_select_indices(chosen)
            rows = number
        assert ours.get_seq_length() == plain.get_seq_length()
        assert torch.equal(ours.keys, plain.keys)


def test_one_more_token_moves_nothing() -> None:
    layer = RoomyLayer()
    layer.update(torch.rand(1, 1, 5, 2), torch.rand(1, 1, 5, 2))
    place = layer.keys.data_ptr()
    layer.update(torch.rand(1, 1, 1, 2), torch.rand(1, 1, 1, 2))
    assert layer.keys.data_ptr() == place
