"""Who is champion, and how that changes.

The alias `champion` of `altollm` is the truth, and writing it is the one step that decides. What follows from it (the
alias of the mask tokenizer it was trained on, the tracked file that stages read) is brought in line by `settle`, so a
process that dies in between leaves a state that the next call repairs.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from data_contracts.errors import InputError
from jobs.benchmarking.results import SAMPLES_FILE
from jobs.runner.registry import REGISTERED_MODELS
from jobs.runner.tracking import use_project_store

ALTOLLM = REGISTERED_MODELS["altollm_grpo"]
TOKENIZER = REGISTERED_MODELS["tokenizer_stage1_5"]
CHALLENGER_ALIAS, CHAMPION_ALIAS = "challenger", "champion"
CHAMPION_FILE = Path("infra/champion.json")
PREVIOUS = "previous_champion"
NO_VERSION = "none"


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

    def crown(self, version: Any, samples: dict[str, Path]) -> None:
        """Make `version` champion. samples: benchmark -> its results, kept with the version to compare with later."""
        champion = self.version(ALTOLLM, CHAMPION_ALIAS)
        self.tokenizer_of(version)
        with _answering():
            for benchmark, path in samples.items():
                self.client.log_artifact(version.run_id, str(path), f"benchmarks/{benchmark}")
            previous = NO_VERSION if champion is None else str(champion.version)
            self.client.set_model_version_tag(ALTOLLM, version.version, PREVIOUS, previous)
            self.client.set_registered_model_alias(ALTOLLM, CHAMPION_ALIAS, version.version)
        self.settle()

    def roll_back(self) -> Any:
        """Give the title back to the champion's predecessor, and return it. Raises InputError where there is none."""
        champion = self.version(ALTOLLM, CHAMPION_ALIAS)
        previous = NO_VERSION if champion is None else champion.tags.get(PREVIOUS, NO_VERSION)
        if previous == NO_VERSION:
            raise InputError(f"{ALTOLLM}: there is no previous champion to roll back to")
        with _answering():
            self.client.set_registered_model_alias(ALTOLLM, CHAMPION_ALIAS, previous)
        self.settle()
        return self.version(ALTOLLM, CHAMPION_ALIAS)

    def settle(self) -> None:
        """Bring the tokenizer's alias and the tracked file in line with the champion; nothing where they are."""
        champion = self.version(ALTOLLM, CHAMPION_ALIAS)
        if champion is None:
            return
        tokenizer = self.tokenizer_of(champion)
        current = self.version(TOKENIZER, CHAMPION_ALIAS)
        if current is None or current.version != tokenizer.version:
            with _answering():
                self.client.set_registered_model_alias(TOKENIZER, CHAMPION_ALIAS, tokenizer.version)
        content = {
            version.name: {"version": str(version.version), "data_version": version.tags["data_version"]}
            for version in (tokenizer, champion)
        }
        write_atomically(self.root / CHAMPION_FILE, json.dumps(content, indent=1) + "\n")

    def samples(self, version: Any, benchmark: str) -> pd.DataFrame | None:
        """Results kept with a champion; None where it was not measured on this benchmark."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as folder:
            try:
                path = download_artifacts(
                    run_id=version.run_id,
                    artifact_path=f"benchmarks/{benchmark}/{SAMPLES_FILE}",
                    dst_path=folder,
                )
            except (MlflowException, OSError):
                return None
            return pq.read_table(path).to_pandas()


@contextmanager
def promotion_lock(root: Path) -> Iterator[None]:
    """One promotion or rollback at a time on this file system; others wait. The kernel frees it if its holder dies."""
    folder = root / ".work" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "promotion.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str) -> None:
    if path.exists() and path.read_text() == content:
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_text(content)
    shutil.move(temporary, path)


@contextmanager
def _answering() -> Iterator[None]:
    """Turns whatever a registry that is down raises into one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the model registry does not answer, so nothing is decided ({reason})") from error
