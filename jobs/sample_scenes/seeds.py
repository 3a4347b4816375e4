"""Random streams of the sample scenes: one a purpose, so that no two purposes share a scene."""

import numpy as np


def scene_rng(seed: int, purpose: str, index: int) -> np.random.Generator:
    """Generator of scene `index` (>= 0) of a purpose; independent of all other (purpose, index) pairs.

    purpose: any name, such as "benchmark" or "sa1b/sa_000000.tar".
    """
    key = (*purpose.encode(), index)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
