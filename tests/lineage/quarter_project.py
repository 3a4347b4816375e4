"""The project that a quarter is played in: profile smoke, one training set, SA-1B shards in a folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

from jobs.acquisition.sa1b_writer import write_shard
from jobs.sample_scenes.scene import Scene, SceneConfig, draw_scene
from jobs.sample_scenes.seeds import scene_rng
from tests.lineage.project import copy_repository
from tests.lineage.test_damaged_data import damage_first_image

IMAGES = 12  # of a shard
RULES = {"gains": ["giou"], "max_loss": {"giou": 0.01}, "max_slowdown": None, "resamples": 200}


def draw_shard(root: Path, number: int, broken: bool = False) -> None:
    """A shard in the folder; of a broken one, the masks of an image are not what they are said to be."""
    path = root / "shards" / f"sa_{number:06d}.tar"

    def scenes() -> Iterator[tuple[Scene, np.random.Generator]]:
        for index in range(IMAGES):
            rng = scene_rng(7, path.name, index)
            yield draw_scene(rng, SceneConfig()), rng

    drawn = root / "drawn" / path.name if broken else path
    drawn.parent.mkdir(exist_ok=True)
    write_shard(scenes(), drawn)
    if broken:
        damage_first_image(drawn, path)


def create(root: Path) -> None:
    """One shard in a folder, one training set, and settings by which nothing waits."""
    copy_repository(root)
    (root / "shards").mkdir()
    draw_shard(root, 0)
    for name, changes in {
        "params.yaml": {
            "acquire_sa1b": {"source": "folder", "folder": str(root / "shards")},
            "benchmark": {"limit": None},
            "promotion": RULES,
        },
        "partitions.yaml": {
            "sa1b": {"batches": ["batch_000"], "shards": {"batch_000": ["sa_000000.tar"]}},
            "referring": {"datasets": ["refcoco"]},
        },
        "infra/automation.yaml": {
            "new_data": {"seconds_between_looks": 60, "settled_seconds": 0},
            "retrying": {"times": 2, "after_minutes": 0},
        },
        # The project has no commit, and every version counts.
        "infra/retention.yaml": {"dvc_cache": {"commits": "none"}, "model_versions": {"newest": 0}},
    }.items():
        content = yaml.safe_load((root / name).read_text())
        for key, value in changes.items():
            content[key] = content[key] | value
        (root / name).write_text(yaml.safe_dump(content, sort_keys=False))
