"""What is asked together."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TypeVar

T = TypeVar("T")


def whole_images(questions: Iterable[T], image_id: Callable[[T], str], most: int) -> Iterator[list[T]]:
    """Batches of up to `most` questions, in order. Those on one image, which follow each other, are in one batch where
    they fit into one, so that the image is encoded once for all of them."""
    batch: list[T] = []
    for _, group in groupby(questions, image_id):
        own = list(group)
        if batch and len(batch) + len(own) > most:
            yield batch
            batch = []
        batch += own
        while len(batch) > most:
            yield batch[:most]
            batch = batch[most:]
    if batch:
        yield batch
