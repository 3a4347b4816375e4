from hypothesis import given
from hypothesis import strategies as st

from jobs.benchmarking.batches import whole_images


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 8))
def test_no_image_is_split_that_fits_into_a_batch(sizes: list[int], most: int) -> None:
    """sizes: questions on each image."""
    questions = [(str(image), place) for image, size in enumerate(sizes) for place in range(size)]
    batches = list(whole_images(questions, lambda one: one[0], most))
    assert [one for batch in batches for one in batch] == questions
    assert all(1 <= len(batch) <= most for batch in batches)
    for image, size in enumerate(sizes):
        holding = sum(any(name == str(image) for name, _ in batch) for batch in batches)
        assert holding == 1 or size > most
