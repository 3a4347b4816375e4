"""Which training images a step uses."""

import numpy as np


def batch_of(step: int, size: int, count: int, seed: int) -> list[int]:
    """Indices below `count` for one step: consecutive positions of endless passes, each in its own order."""
    positions = range(step * size, (step + 1) * size)
    orders = {
        epoch: np.random.default_rng([seed, 1, epoch]).permutation(count)
        for epoch in {position // count for position in positions}
    }
    return [int(orders[position // count][position % count]) for position in positions]
