"""Acquires one data set of referring expressions, for training or for a benchmark."""

from collections.abc import Iterator

from data_contracts.errors import InputError
from jobs.acquisition.alto_writer import write_alto_jsonl
from jobs.acquisition.contact_sheet import ContactSheet
from jobs.acquisition.dataset_layout import count_files, require_layout, wanted_by
from jobs.acquisition.fetch import fetch
from jobs.acquisition.image_folder import copy_named_images
from jobs.acquisition.local_folder import existing_folder
from jobs.acquisition.refer_writer import write_grefcoco, write_refer
from jobs.acquisition.sampled import SampledScene, SampleFigures, sample_scenes
from jobs.acquisition.settings import DatasetConfig, write_dataset_file
from jobs.runner.context import StageContext, StageReport


def acquire(
    datasets: dict[str, DatasetConfig], purpose: str, section: str, context: StageContext
) -> StageReport:
    """Acquire the data set the stage's partition names.

    purpose: keeps sample scenes apart from those of other purposes. section: where `datasets` stands in
    params.yaml, for messages.
    """
    name = context.partition or ""
    if name not in datasets:
        raise InputError(
            f"params.yaml: {section} has no settings for `{name}`; add them or drop the partition"
        )
    config = datasets[name]
    own_image_ids = config.own_image_ids or config.source == "sample"
    write_dataset_file(context.output, config.format, name, config.source, own_image_ids)
    if config.source == "sample":
        return _write_samples(config, name, purpose, context)
    if config.folder is not None:
        folder = existing_folder(config.folder)
        require_layout(folder, config.format, f"folder `{folder.name}`")
    fetch(config, context.output, wanted_by(config.format), context.work / "downloads", context)
    require_layout(context.output, config.format, f"the data set `{name}`")
    if config.image_folder is not None:
        copy_named_images(config.image_folder, config.format, context)
    return StageReport(figures=count_files(context.output, config.format))


def _write_samples(config: DatasetConfig, name: str, purpose: str, context: StageContext) -> StageReport:
    figures = SampleFigures()
    sheet = ContactSheet()

    def drawn() -> Iterator[SampledScene]:
        with context.progress(config.images, "Drawing scenes", "image") as bar:
            for sampled in sample_scenes(config, context.seed, f"{purpose}/{name}"):
                figures.add(sampled)
                _show(sampled, sheet)
                yield sampled
                bar.update(1)

    if config.format == "refer":
        write_refer(drawn(), context.output)
    elif config.format == "grefcoco":
        write_grefcoco(drawn(), context.output)
    else:
        write_alto_jsonl(drawn(), context.output, name)
    sheet.save(context.output / "pictures" / "samples.png")
    return StageReport(figures=figures.summary())


def _show(sampled: SampledScene, sheet: ContactSheet) -> None:
    if not sheet.full and sampled.expressions:
        expression = sampled.expressions[0]
        masks = [sampled.scene.objects[target].mask for target in expression.targets]
        sheet.add(sampled.scene.image, masks, expression.text + ("" if masks else " (not there)"))
