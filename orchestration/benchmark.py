"""`alto benchmark`: what a stage measures of the model trained in the lineage, of any model."""

from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import InputError
from jobs.runner.context import StageContext
from jobs.runner.layout import project_root, stage_folder
from jobs.runner.lineage import read_yaml
from jobs.runner.metric_log import MetricLog
from orchestration.atomic_files import new_folder, require_new
from orchestration.tokenize import ModelOption

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
        context = StageContext(
            stage="tokenizer_benchmark",
            partition=None,
            partition_items=(),
            seed=parameters["seed"],
            inputs={"prepare_sa1b": data},
            output=output,
            work=output.parent,
            metric_log=MetricLog(output.parent / "curves.jsonl"),
        )
        report = measure(network, config, context)
    for name, value in report.figures.items():
        print(f"{name:24} {value}")
    for check in report.checks:
        print(f"{check.name}: {'passed' if check.passed else 'FAILED'} ({check.reason})")
