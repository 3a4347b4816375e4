"""Random streams of the sample scenes: one a purpose, so that no two purposes share a scene."""

import numpy as np

# The numbers are part of every stored scene's identity: add purposes, never renumber.
PURPOSES = {
    "sa1b": 1,
    "refcoco": 2,
    "grefcoco": 3,
    "alto_pairs": 4,
    "benchmark": 5,
    "base_pretraining": 6,
}


def scene_rng(seed: int, purpose: str, index: int) -> np.random.Generator:
    """Generator of scene `index` (>= 0) of a purpose; independent of all other (purpose, index) pairs.

    Raises KeyError for an unknown purpose.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES[purpose], index)))
