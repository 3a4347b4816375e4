"""Finds a tokenizer by folder or MLflow URI; by default the champion, else the newest trained."""

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
from jobs.runner.registry import CHAMPION, REGISTERED_MODELS
from jobs.runner.tracking import use_project_store

if TYPE_CHECKING:
    from alto_models.tokenizer.api import TrainedTokenizer

STAGE = "tokenizer_stage1_5"
URI_PREFIX = "models:/"


def load_trained_tokenizer(model: str | None) -> "TrainedTokenizer":
    """The tokenizer in `tokenizer_folder(model)`. Raises InputError where there is none."""
    from alto_models.tokenizer.api import TrainedTokenizer

    with tokenizer_folder(model) as folder:
        return TrainedTokenizer.from_folder(folder)


@contextmanager
def tokenizer_folder(model: str | None) -> Iterator[Path]:
    """Checkpoint folder, for as long as the context is open, of a model given as one, as
    `models:/NAME/VERSION` or as `models:/NAME@ALIAS`.

    None: of the registered champion, else the newest trained version, else the output folder of the
    stage in the current profile; which, is told on stderr. Raises InputError for an unknown URI.
    """
    if model is None:
        model = default_model()
        print(f"model: {model}", file=sys.stderr)
    with TemporaryDirectory() as downloads:
        yield find_folder(model, Path(downloads))


def find_folder(model: str, downloads: Path) -> Path:
    """Folder of a model; of one given by URI a copy in `downloads`. Raises InputError for an unknown URI."""
    if not model.startswith(URI_PREFIX):
        return Path(model)
    root = project_root()
    if not has_registry(root):
        raise InputError(f"{model}: nothing is registered yet; run `alto sync`, or give a folder")
    use_project_store(root)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.artifacts import download_artifacts

    try:
        return Path(download_artifacts(artifact_uri=model, dst_path=str(downloads)))
    except Exception as error:  # whatever the server, its client or the artifact store raises
        raise InputError(f"{model}: cannot be had from the model registry ({first_line(error)})") from error


def default_model() -> str:
    """URI of the champion or the newest version, or the output folder of the stage."""
    root = project_root()
    if has_registry(root):
        try:
            registered = newest_registered(root)
        except Exception as error:  # as above
            print(f"warning: MLflow is not reachable ({first_line(error)})", file=sys.stderr)
        else:
            if registered is not None:
                return registered
    folder = root / output_folder(read_lineage(root).profile, StageAddress(STAGE))
    if not folder.is_dir():
        raise InputError(f"no trained tokenizer: run `dvc repro {STAGE}` first, or give --model")
    return str(folder)


def newest_registered(root: Path) -> str | None:
    """URI of the champion, else of the newest version; None where there is neither.

    What was registered from a folder is not trained here, so it is a default only as champion.
    """
    use_project_store(root)
    from mlflow import MlflowClient

    name, client = REGISTERED_MODELS[STAGE], MlflowClient()
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
