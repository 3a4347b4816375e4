"""Work on images in threads, in order and with bounded look-ahead."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Decoding lets go of Python's lock, run arithmetic mostly does not: more threads would only wait.
MAX_THREADS = 4


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """work(item) for each item, in the order of the items; at most two items a thread are under way."""
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Result]] = deque()
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) >= 2 * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def useful_threads() -> int:
    """As many as this process has cores, within reason."""
    return max(1, min(len(os.sched_getaffinity(0)), MAX_THREADS))
