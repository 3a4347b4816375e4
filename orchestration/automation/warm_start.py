"""Training that goes on from the champion: its checkpoints become the base weights, pinned by their checksums."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alto_models.weight_files import weights_sha256
from data_contracts.errors import InputError
from jobs.runner.lineage import read_yaml
from orchestration.parameter_file import change_parameters
from orchestration.promotion.champion import ALTOLLM, CHAMPION_FILE, TOKENIZER
from orchestration.trained_models import find_folder

FOLDER = Path("data/champion")  # not in git, and no stage's output
LICENCE = "as the base weights that it was trained from"
MODELS = {"tokenizer": TOKENIZER, "altollm": ALTOLLM}  # section of base_weights -> registered model


def start_from_champion(root: Path) -> list[str]:
    """Name the champion's checkpoints in `params.yaml` as what training starts from; returns their versions.

    The champion is the one in the file that only promotion writes. Raises InputError where there is none.
    """
    if not (root / CHAMPION_FILE).exists():
        raise InputError("there is no champion to start from: run `alto promote`")
    pinned = json.loads((root / CHAMPION_FILE).read_text())
    sources = {name: _source(root, model, pinned[model]) for name, model in MODELS.items()}
    parameters = read_yaml(root / "params.yaml")
    if {name: parameters["base_weights"][name] for name in sources} != sources:

        def change(parameters: dict[str, Any]) -> None:
            parameters["base_weights"].update(sources)
            parameters["tokenizer_stage1"]["initial_weights"] = "base"

        change_parameters(root, change)
    return [f"{model} {pinned[model]['version']}" for model in MODELS.values()]


def _source(root: Path, model: str, version: dict[str, str]) -> dict[str, str]:
    """A section of `base_weights`; the checkpoint is fetched once."""
    folder = FOLDER / f"{model}-{version['version']}"
    if not (root / folder).exists():
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root / FOLDER) as downloads:
            found = find_folder(f"models:/{model}/{version['version']}", Path(downloads, "download"))
            shutil.copytree(found, Path(downloads, "checkpoint"))
            Path(downloads, "checkpoint").rename(root / folder)
    return {"folder": str(folder), "sha256": weights_sha256(root / folder), "licence": LICENCE}
