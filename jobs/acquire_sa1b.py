"""Acquire one batch of SA-1B shards: tars of `sa_N.jpg` + `sa_N.json`, or loose pairs of these.

By name from a folder, from the publisher's links or from a bucket. A folder that holds loose pairs and no shard is
taken whole. With `by_reference` the shards of a folder or bucket stay there, and what identifies them is recorded.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from data_contracts.errors import InputError
from jobs.acquisition.contact_sheet import ContactSheet
from jobs.acquisition.dataset_layout import count_files, require_layout, wanted_by
from jobs.acquisition.link_list import read_links
from jobs.acquisition.link_source import fetch_from_links, renewal_in
from jobs.acquisition.local_folder import copy_file, copy_folder, existing_folder
from jobs.acquisition.s3_source import fetch_named_from_s3
from jobs.acquisition.sa1b_writer import IDS_A_SHARD, shard_number, write_shard
from jobs.acquisition.settings import SourceConfig, write_dataset_file
from jobs.acquisition.shard_references import refer_to_bucket, refer_to_folder
from jobs.acquisition.transfer_settings import ListedLinks
from jobs.runner.context import StageContext, StageReport
from jobs.sample_scenes.scene import Scene, draw_scene
from jobs.sample_scenes.seeds import scene_rng


class Config(SourceConfig[ListedLinks]):
    images_per_shard: int = Field(default=100, ge=1, lt=IDS_A_SHARD, description="scenes to draw for a shard")
    by_reference: bool = Field(
        default=False,
        description="leave shards where they are (`folder`, `s3`) and record what identifies them",
    )

    @model_validator(mode="after")
    def _place_that_keeps(self) -> "Config":
        if self.by_reference and self.source not in ("folder", "s3"):
            raise ValueError(f"`by_reference` needs a `folder` or `s3`, and source is {self.source}")
        return self


def run(config: Config, context: StageContext) -> StageReport:
    """Draw, copy or download the shards of the partition."""
    for shard in context.partition_items:
        shard_number(shard)
    if config.by_reference:
        return _refer(config, context)
    write_dataset_file(context.output, "sa1b", context.partition or "", config.source)
    if config.folder is not None:
        return _copy(existing_folder(config.folder), context)
    if config.source != "sample":
        return _download(config, context)
    return _draw(config, context)


def _refer(config: Config, context: StageContext) -> StageReport:
    shards = sorted(set(context.partition_items))
    write_dataset_file(context.output, "sa1b_references", context.partition or "", config.source)
    if config.s3 is not None:
        references = refer_to_bucket(config.s3, shards)
    else:
        references = refer_to_folder(config.folder or "", shards, context)
    references.write(context.output)
    return StageReport(figures={"shards": len(shards), "bytes": references.bytes})


def _draw(config: Config, context: StageContext) -> StageReport:
    shards = context.partition_items
    sheet = ContactSheet()
    masks = 0

    with context.progress(len(shards) * config.images_per_shard, "Drawing scenes", "image") as bar:

        def drawn(shard: str) -> Iterator[tuple[Scene, np.random.Generator]]:
            nonlocal masks
            for index in range(config.images_per_shard):
                rng = scene_rng(context.seed, f"sa1b/{shard}", index)
                scene = draw_scene(rng, config.scene)
                masks += len(scene.objects)
                if not sheet.full:
                    sheet.add(
                        scene.image, [item.mask for item in scene.objects], f"{len(scene.objects)} masks"
                    )
                yield scene, rng
                bar.update(1)

        for shard in shards:
            write_shard(drawn(shard), context.output / shard)
    sheet.save(context.output / "pictures" / "samples.png")
    figures = {"shards": len(shards), "images": len(shards) * config.images_per_shard, "masks": masks}
    return StageReport(figures=figures)


def _copy(folder: Path, context: StageContext) -> StageReport:
    shards = context.partition_items
    missing = [shard for shard in shards if not (folder / shard).exists()]
    if len(missing) == len(shards) and any(folder.glob("sa_*.json")):
        require_layout(folder, "sa1b", f"folder `{folder.name}`")
        copy_folder(folder, context.output, wanted_by("sa1b"), context)
        return StageReport(figures=count_files(context.output, "sa1b"))
    if missing:
        raise InputError(
            f"folder `{folder.name}` has no shard `{missing[0]}`; download it or correct `folder`"
        )
    with context.progress(len(shards), "Copying", "shard") as bar:
        for shard in shards:
            copy_file(folder, folder / shard, context.output / shard)
            bar.update(1)
    return StageReport(figures={"shards": len(shards)})


def _download(config: Config, context: StageContext) -> StageReport:
    shards = list(dict.fromkeys(context.partition_items))
    # What has been downloaded survives a kill here; the output folder of a killed run does not.
    folder = context.work / "downloads"
    folder.mkdir(exist_ok=True)
    if (links := config.links) is not None:
        listed = read_links(Path(links.file), shards)
        fetch_from_links(links, listed, folder, renewal_in(links.file), context)
    if config.s3 is not None:
        fetch_named_from_s3(config.s3, shards, folder, context)
    for shard in shards:
        (folder / shard).replace(context.output / shard)
    size = sum((context.output / shard).stat().st_size for shard in shards)
    return StageReport(figures={"shards": len(shards), "bytes": size})


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("acquire_sa1b")
