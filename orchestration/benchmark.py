"""`alto benchmark`: what a stage measures of the model trained in the lineage, of any model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from data_contracts.errors import InputError
from jobs.runner.context import StageContext, StageReport
from jobs.runner.layout import StageAddress, output_folder, project_root, stage_folder
from jobs.runner.lineage import read_yaml
from jobs.runner.metric_log import MetricLog
from jobs.runner.processes import joined_processes, launched_rank
from orchestration.atomic_folders import new_folder, require_new
from orchestration.segment import TokenizerOption
from orchestration.tokenize import ModelOption

MEASURED = "altollm"  # the model, in tables

app = typer.Typer(help="Measure models as the stages do.", no_args_is_help=True)


@app.callback()
def benchmark() -> None:
    """Measure models as the stages do."""


@app.command()
def tokenizer(
    out: Annotated[Path, typer.Option(help="New folder for metrics.json, samples.parquet and pictures.")],
    model: ModelOption = None,
    images: Annotated[
        int | None, typer.Option(help="Held-out images, at most; default: as the stage.", min=1)
    ] = None,
) -> None:
    """Measure a mask tokenizer on the current profile's held-out masks, as the stage tokenizer_benchmark does."""
    require_new(out)
    from alto_models.tokenizer.any_tokenizer import load_any_tokenizer
    from alto_models.training.precision import own_device
    from jobs.tokenizer_benchmark import Config, measure
    from orchestration.trained_models import tokenizer_folder

    root = project_root()
    parameters = read_yaml(root / "params.yaml")
    data = root / stage_folder(parameters["profile"], "prepare_sa1b")
    if not data.is_dir():
        raise InputError(f"{data}: no held-out masks; run `dvc repro prepare_sa1b` first")
    section = parameters["tokenizer_benchmark"]
    config = Config.model_validate(section if images is None else section | {"images": images})
    with tokenizer_folder(model) as folder:
        network = load_any_tokenizer(folder).to(own_device())
    with new_folder(out) as output:
        context = _context("tokenizer_benchmark", None, parameters["seed"], {"prepare_sa1b": data}, output)
        report = measure(network, config, context)
    _print(report)


@app.command()
def altollm(
    benchmark: Annotated[str, typer.Argument(help="A prepared benchmark, such as scenes.")],
    out: Annotated[Path, typer.Option(help="New folder for the metrics and what was answered.")],
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    limit: Annotated[
        int | None, typer.Option(help="Images, at most, as every figure then says; default: all.", min=1)
    ] = None,
) -> None:
    """Measure a language model on a prepared benchmark of the current profile, as the stage benchmark does.

    Under torchrun its processes share the images out.
    """
    require_new(out)
    from alto_models.data.shards import ShardRows
    from alto_models.data.vqa import VqaImages, holds_questions
    from data_contracts.schemas import REFERRING_SCHEMA
    from jobs.benchmark import Config, compare_systems
    from jobs.benchmarking.language import LanguageSystem
    from jobs.benchmarking.speed import SPEED_FILE
    from jobs.benchmarking.vqa import ask_and_score
    from orchestration.trained_models import load_segmenter

    root = project_root()
    parameters = read_yaml(root / "params.yaml")
    data = root / output_folder(parameters["profile"], StageAddress("prepare_benchmark", benchmark))
    if not data.is_dir():
        raise InputError(f"{data}: no such benchmark; run `dvc repro prepare_benchmark@{benchmark}` first")
    config = Config.model_validate(parameters["benchmark"] | {"limit": limit})
    with joined_processes(), _folder_of_process(out) as output:
        segmenter = load_segmenter(model, tokenizer)
        inputs = {"prepare_benchmark": data.parent}
        context = _context("benchmark", benchmark, parameters["seed"], inputs, output)
        sizes = segmenter.tokenizer.config
        if holds_questions(data):
            models = {MEASURED: segmenter.llm}
            report = ask_and_score(VqaImages(data), models, sizes.max_length, config, context)
        else:
            system = LanguageSystem(
                name=MEASURED,
                model=segmenter.llm,
                tokenizer=segmenter.tokenizer,
                batch_size=config.questions_per_batch,
            )
            rows = ShardRows(data, REFERRING_SCHEMA, None)
            report = compare_systems(rows, [system], sizes, config, context, learned=[MEASURED])
        if launched_rank() == 0:
            _print_speed(context.work / SPEED_FILE)
            _print(report)


@contextmanager
def _folder_of_process(out: Path) -> Iterator[Path]:
    """`out` for the first of several processes; what the others write goes."""
    with (
        TemporaryDirectory() as scratch,
        new_folder(out if launched_rank() == 0 else Path(scratch, "out")) as folder,
    ):
        yield folder


def _print_speed(file: Path) -> None:
    """Of answers with masks; answers in words are not timed."""
    from jobs.benchmarking.results import read_metrics
    from jobs.benchmarking.speed import Speed, speed_lines

    if file.is_file():
        print("\n".join(speed_lines(read_metrics(file, Speed))))


def _context(
    stage: str, partition: str | None, seed: int, inputs: dict[str, Path], output: Path
) -> StageContext:
    return StageContext(
        stage=stage,
        partition=partition,
        partition_items=(),
        seed=seed,
        inputs=inputs,
        output=output,
        work=output.parent,
        metric_log=MetricLog(output.parent / "curves.jsonl"),
    )


def _print(report: StageReport) -> None:
    for name, value in report.figures.items():
        print(f"{name:32} {value}")
    for check in report.checks:
        print(f"{check.name}: {'passed' if check.passed else 'FAILED'} ({check.reason})")
