"""Who is champion, and how that changes.

The alias `champion` of `altollm` is the truth, and writing it is the one step that decides. What follows from it (the
alias of the mask tokenizer it was trained on, the tracked file that stages read) is brought in line by `settle`, so a
process that dies in between leaves a state that the next call repairs.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from assets.drift import CHAMPION_DATA_FILE
from data_contracts.errors import InputError, first_line
from jobs.benchmarking.results import SAMPLES_FILE
from jobs.runner.registry import CHAMPION, REGISTERED_MODELS
from jobs.runner.tracking import use_project_store
from orchestration.atomic_files import write_atomically

ALTOLLM = REGISTERED_MODELS["altollm_grpo"]
TOKENIZER = REGISTERED_MODELS["tokenizer_stage1_5"]
CHAMPION_FILE = Path("infra/champion.json")
PREVIOUS = "previous_champion"
NO_VERSION = "none"
DATA_ARTIFACT = "data/champion_data.json"


class Registry:
    """The model registry, as promotion sees it. Methods raise InputError where it does not answer."""

    def __init__(self, root: Path) -> None:
        use_project_store(root)
        from mlflow import MlflowClient

        self.root = root
        self.client = MlflowClient()

    def version(self, model: str, alias: str) -> Any | None:
        """The model version an alias points at; None where there is none."""
        with _answering():
            registered = self.client.search_registered_models(f"name = '{model}'")
            number = registered[0].aliases.get(alias) if registered else None
            return None if number is None else self.client.get_model_version(model, number)

    def tokenizer_of(self, altollm: Any) -> Any:
        """The registered mask tokenizer that an `altollm` version was trained on."""
        wanted = altollm.tags.get("tokenizer_data_version")
        with _answering():
            for version in self.client.search_model_versions(f"name = '{TOKENIZER}'"):
                if version.tags.get("data_version") == wanted:
                    return version
        raise InputError(
            f"{ALTOLLM} version {altollm.version}: its mask tokenizer is not registered; run `alto sync`"
        )

    def crown(self, number: str, samples: dict[str, Path], data: str) -> None:
        """Make version `number` of `altollm` champion.

        samples: benchmark -> its results, kept with the version to compare with later.
        data: what it was trained on (assets/drift.py), kept with the version, too.
        """
        champion = self.version(ALTOLLM, CHAMPION)
        with _answering():
            version = self.client.get_model_version(ALTOLLM, number)
        self.tokenizer_of(version)
        with _answering():
            for benchmark, path in samples.items():
                self.client.log_artifact(version.run_id, str(path), f"benchmarks/{benchmark}")
            self.client.log_text(version.run_id, data, DATA_ARTIFACT)
            previous = NO_VERSION if champion is None else str(champion.version)
            self.client.set_model_version_tag(ALTOLLM, number, PREVIOUS, previous)
            self.client.set_registered_model_alias(ALTOLLM, CHAMPION, number)
        self.settle()

    def roll_back(self) -> Any:
        """Give the title back to the champion's predecessor, and return it. Raises InputError where there is none."""
        champion = self.version(ALTOLLM, CHAMPION)
        previous = NO_VERSION if champion is None else champion.tags.get(PREVIOUS, NO_VERSION)
        if previous == NO_VERSION:
            raise InputError(f"{ALTOLLM}: there is no previous champion to roll back to")
        with _answering():
            self.client.set_registered_model_alias(ALTOLLM, CHAMPION, previous)
        self.settle()
        return self.version(ALTOLLM, CHAMPION)

    def settle(self) -> None:
        """Bring the tokenizer's alias and the tracked files in line with the champion; nothing where they are."""
        champion = self.version(ALTOLLM, CHAMPION)
        if champion is None:
            return
        tokenizer = self.tokenizer_of(champion)
        current = self.version(TOKENIZER, CHAMPION)
        if current is None or current.version != tokenizer.version:
            with _answering():
                self.client.set_registered_model_alias(TOKENIZER, CHAMPION, tokenizer.version)
        content = {
            version.name: {"version": str(version.version), "data_version": version.tags["data_version"]}
            for version in (tokenizer, champion)
        }
        _keep(self.root / CHAMPION_FILE, json.dumps(content, indent=1) + "\n")
        _keep(self.root / CHAMPION_DATA_FILE, self._data_of(champion))

    def _data_of(self, version: Any) -> str | None:
        """What a champion was trained on; None for one from before this was kept."""
        path = self._artifact(version, DATA_ARTIFACT)
        return None if path is None else path.decode()

    def samples(self, version: Any, benchmark: str) -> pd.DataFrame | None:
        """Results kept with a champion; None where it was not measured on this benchmark."""
        content = self._artifact(version, f"benchmarks/{benchmark}/{SAMPLES_FILE}")
        return None if content is None else pq.read_table(pa.BufferReader(content)).to_pandas()

    def _artifact(self, version: Any, name: str) -> bytes | None:
        """A file kept with a version; None where there is none."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as folder:
            try:
                path = download_artifacts(run_id=version.run_id, artifact_path=name, dst_path=folder)
            except (MlflowException, OSError):
                return None
            return Path(path).read_bytes()


def _keep(path: Path, text: str | None) -> None:
    """Write a file unless it is so already; None: there is to be none."""
    if text is None:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_text() != text:
        write_atomically(path, text)


@contextmanager
def _answering() -> Iterator[None]:
    """Turns whatever a registry that is down raises into one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise InputError(
            f"the model registry does not answer, so nothing is decided ({first_line(error)})"
        ) from error
