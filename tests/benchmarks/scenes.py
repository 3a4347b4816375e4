"""Sample scenes as SA-1B ships them and as the pipeline prepares them, made by the pipeline's own stages."""

import tarfile
from dataclasses import dataclass
from pathlib import Path

from jobs import acquire_sa1b, prepare_sa1b
from jobs.runner.context import StageContext
from jobs.runner.metric_log import MetricLog
from jobs.sample_scenes.scene import SceneConfig

SHARD = "sa_000000.tar"


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """source: folder of `sa_N.jpg` + `sa_N.json`; prepared: output of prepare_sa1b."""

    source: Path
    prepared: Path


def draw_scenes(folder: Path, images: int, scene: SceneConfig, held_out_share: float = 0.0) -> Scenes:
    """Both forms of some scenes, always the same ones."""
    acquired = _acquire(folder, acquire_sa1b.Config(scene=scene, images_per_shard=images))
    source = folder / "source"
    with tarfile.open(acquired / SHARD) as tar:
        tar.extractall(source, filter="data")
    return Scenes(source=source, prepared=_prepare(folder, acquired, held_out_share))


def copied_pairs(folder: Path, source: Path) -> Scenes:
    """Both forms of the SA-1B pairs in `source`."""
    acquired = _acquire(folder, acquire_sa1b.Config(source="folder", folder=str(source)))
    return Scenes(source=source, prepared=_prepare(folder, acquired, 0.0))


def _acquire(folder: Path, config: acquire_sa1b.Config) -> Path:
    context = stage_context(folder, "acquire_sa1b", items=(SHARD,))
    acquire_sa1b.run(config, context)
    return context.output


def _prepare(folder: Path, acquired: Path, held_out_share: float) -> Path:
    context = stage_context(folder, "prepare_sa1b", inputs={"acquire_sa1b": acquired})
    prepare_sa1b.run(prepare_sa1b.Config(held_out_share=held_out_share), context)
    return context.output


def stage_context(
    folder: Path,
    stage: str,
    inputs: dict[str, Path] | None = None,
    items: tuple[str, ...] = (),
    seed: int = 0,
) -> StageContext:
    """Context of a stage that writes below `folder`."""
    output, work = folder / stage / "output", folder / stage / "work"
    output.mkdir(parents=True)
    work.mkdir()
    return StageContext(
        stage=stage,
        partition=None,
        partition_items=items,
        seed=seed,
        inputs=inputs or {},
        output=output,
        work=work,
        metric_log=MetricLog(work / "metrics.jsonl"),
    )
