"""The benchmark of preparing measures what it says: right pairs, all parts, the same work in each round."""

from pathlib import Path

from jobs.preparation.measuring import measure_image
from jobs.preparation.sa1b import SA1B
from tests.benchmarks.prepare import (
    MAX_PIXELS,
    generated_pair,
    judge,
    part_seconds,
    read_shard,
    write_shard,
)

IMAGES, MASKS = 4, 5


def test_generated_pairs_are_accepted_and_every_part_is_timed(tmp_path: Path) -> None:
    pairs = [generated_pair(96, 64, MASKS, seed) for seed in range(2)]
    acquired = write_shard(tmp_path / "acquired", pairs, IMAGES)
    measured = [measure_image(raw, SA1B.contract.convention, MAX_PIXELS) for raw in read_shard(acquired)]
    verdicts, accepted = judge().verdicts(measured)
    assert [verdict.rule for verdict in verdicts] == [None] * IMAGES * MASKS
    assert len(accepted) == IMAGES * MASKS
    seconds = part_seconds(acquired, repeats=1)
    assert len(seconds) == 6
    assert sum(seconds.values()) > 0
