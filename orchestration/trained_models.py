"""Finds trained models by folder or MLflow URI; by default the champion, else the newest trained."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from data_contracts.errors import InputError, first_line
from jobs.runner.layout import StageAddress, output_folder, project_root
from jobs.runner.lineage import read_lineage
from jobs.runner.registry import CHAMPION, REGISTERED_MODELS, find_version
from jobs.runner.tracking import use_project_store
from jobs.serving.package import ALTOLLM_CHECKPOINT, checkpoint_in, is_package

if TYPE_CHECKING:
    from alto_models.altollm.api import Segmenter
    from alto_models.tokenizer.api import TrainedTokenizer

TOKENIZER, ALTOLLM = "tokenizer_stage1_5", "altollm_grpo"  # stages
KINDS = {TOKENIZER: "tokenizer", ALTOLLM: "ALToLLM"}
URI_PREFIX = "models:/"


def load_trained_tokenizer(model: str | None) -> "TrainedTokenizer":
    """The tokenizer in `tokenizer_folder(model)`. Raises InputError where there is none."""
    from alto_models.tokenizer.api import TrainedTokenizer

    with tokenizer_folder(model) as folder:
        return TrainedTokenizer.from_folder(folder)


def load_segmenter(model: str | None, tokenizer: str | None) -> "Segmenter":
    """ALToLLM and mask tokenizer, given as in `tokenizer_folder`. Raises InputError where there are none.

    tokenizer None: the one that the model was trained with, which is the one registered with a version, or the
    one that lies beside a folder, as the stages write them.
    """
    from alto_models.altollm.api import Segmenter

    model = or_default(model, ALTOLLM)
    if tokenizer is None:
        model, tokenizer = with_its_tokenizer(model)
    with TemporaryDirectory() as downloads:
        altollm = find_folder(model, Path(downloads, "altollm"))
        return Segmenter.from_folders(altollm, find_folder(tokenizer, Path(downloads, "tokenizer")))


@contextmanager
def tokenizer_folder(model: str | None) -> Iterator[Path]:
    """Checkpoint folder, for as long as the context is open, of a model given as one, as
    `models:/NAME/VERSION` or as `models:/NAME@ALIAS`.

    None: of the registered champion, else the newest trained version, else the output folder of the
    stage in the current profile; which, is told on stderr. Raises InputError for an unknown URI.
    """
    model = or_default(model, TOKENIZER)
    with TemporaryDirectory() as downloads:
        yield find_folder(model, Path(downloads))


def find_folder(model: str, downloads: Path) -> Path:
    """Folder of a model; of one given by URI a copy in `downloads`. Raises InputError for an unknown URI."""
    if not model.startswith(URI_PREFIX):
        return Path(model)
    with registry_for(model):
        from mlflow.artifacts import download_artifacts

        folder = Path(download_artifacts(artifact_uri=model, dst_path=str(downloads)))
        return checkpoint_in(folder, ALTOLLM_CHECKPOINT) if is_package(folder) else folder


def with_its_tokenizer(model: str) -> tuple[str, str]:
    """An ALToLLM and its mask tokenizer, as folders or as URIs with version numbers. Raises InputError."""
    if not model.startswith(URI_PREFIX):
        folder = Path(model).resolve()
        if not folder.is_dir():
            raise InputError(f"{model}: no such folder")
        beside = folder.parent / TOKENIZER
        if not beside.is_dir():
            raise InputError(f"{model}: no mask tokenizer beside it ({TOKENIZER}); give --tokenizer")
        return model, str(beside)
    with registry_for(model):
        from mlflow import MlflowClient

        client = MlflowClient()
        name, _, number = model.removeprefix(URI_PREFIX).partition("/")
        name, _, alias = name.partition("@")
        found = (
            client.get_model_version_by_alias(name, alias)
            if alias
            else client.get_model_version(name, number)
        )
        trained_with = found.tags.get("tokenizer_data_version", "")
        tokenizer = find_version(client, REGISTERED_MODELS[TOKENIZER], trained_with)
    if tokenizer is None:
        raise InputError(
            f"{model}: no registered mask tokenizer belongs to it; "
            f"give a version of {REGISTERED_MODELS[ALTOLLM]}, or --tokenizer"
        )
    return f"{URI_PREFIX}{name}/{found.version}", f"{URI_PREFIX}{tokenizer.model}/{tokenizer.version}"


@contextmanager
def registry_for(model: str) -> Iterator[None]:
    """The model registry to ask for a model; whatever goes wrong there is an InputError."""
    root = project_root()
    if not has_registry(root):
        raise InputError(f"{model}: nothing is registered yet; run `alto sync`, or give a folder")
    use_project_store(root)
    try:
        yield
    except Exception as error:  # whatever the server, its client or the artifact store raises
        raise InputError(f"{model}: cannot be had from the model registry ({first_line(error)})") from error


def or_default(model: str | None, stage: str) -> str:
    """The model, else what `default_model` says, which is told on stderr."""
    if model is None:
        model = default_model(stage)
        print(f"model: {model}", file=sys.stderr)
    return model


def default_model(stage: str) -> str:
    """URI of the champion or the newest version, or the output folder of the stage."""
    root = project_root()
    if has_registry(root):
        try:
            registered = newest_registered(root, stage)
        except Exception as error:  # as above
            print(f"warning: MLflow is not reachable ({first_line(error)})", file=sys.stderr)
        else:
            if registered is not None:
                return registered
    folder = root / output_folder(read_lineage(root).profile, StageAddress(stage))
    if not folder.is_dir():
        raise InputError(f"no trained {KINDS[stage]}: run `dvc repro {stage}` first, or give --model")
    return str(folder)


def newest_registered(root: Path, stage: str) -> str | None:
    """URI of the champion, else of the newest version; None where there is neither.

    What was registered from a folder is not trained here, so it is a default only as champion.
    """
    use_project_store(root)
    from mlflow import MlflowClient

    name, client = REGISTERED_MODELS[stage], MlflowClient()
    found = client.search_registered_models(f"name = '{name}'")
    if found and CHAMPION in found[0].aliases:
        return f"{URI_PREFIX}{name}@{CHAMPION}"
    versions = client.search_model_versions(f"name = '{name}'")
    trained = [int(version.version) for version in versions if "stage" in version.tags]
    newest = max(trained, default=None)
    return None if newest is None else f"{URI_PREFIX}{name}/{newest}"


def has_registry(root: Path) -> bool:
    """Whether there is a store to ask: asking MLflow without one would make one."""
    return "MLFLOW_TRACKING_URI" in os.environ or (root / ".work" / "mlflow" / "mlflow.db").exists()
