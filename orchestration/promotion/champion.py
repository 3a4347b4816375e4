"""Who is champion, and how that changes.

The alias `champion` of `altollm` is the truth, and writing it is the one step that decides. What follows from it (the
alias of the mask tokenizer it was trained on, the tracked file that stages read) is brought in line by `settle`, so a
process that dies in between leaves a state that the next call repairs.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from assets.drift import CHAMPION_DATA_FILE
from data_contracts.errors import InputError, first_line
from jobs.runner.registry import CHAMPION, REGISTERED_MODELS
from jobs.runner.tracking import use_project_store
from jobs.runner.whole_file import write_whole
from orchestration.promotion.history import Noted, What, decision_tag, noted_at

ALTOLLM = REGISTERED_MODELS["altollm_grpo"]
TOKENIZER = REGISTERED_MODELS["tokenizer_stage1_5"]
CHAMPION_FILE = Path("infra/champion.json")
PREVIOUS = "previous_champion"
ROLLED_BACK = "rolled_back"
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

    def numbered(self, model: str, number: str) -> Any | None:
        """A version by its number; None where there is none."""
        with _answering():
            found = self.client.search_model_versions(f"name = '{model}' and version_number = {int(number)}")
            return found[0] if found else None

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

    def crown(self, number: str, before: str | None, results: dict[str, list[Path]], data: str) -> None:
        """Make version `number` of `altollm` champion.

        before: the champion it was compared with. results: benchmark -> files kept with the version, to compare with
        later. data: what it was trained on (assets/drift.py), kept with the version, too.
        Raises InputError where another promotion, from another machine, has come in between.
        """
        with _answering():
            version = self.client.get_model_version(ALTOLLM, number)
        self.tokenizer_of(version)
        with _answering():
            for benchmark, paths in results.items():
                for path in paths:
                    self.client.log_artifact(version.run_id, str(path), f"benchmarks/{benchmark}")
            self.client.log_text(version.run_id, data, DATA_ARTIFACT)
            self.client.set_model_version_tag(ALTOLLM, number, PREVIOUS, before or NO_VERSION)
        self._require_champion(before)
        with _answering():
            self.client.set_registered_model_alias(ALTOLLM, CHAMPION, number)
        self.settle()
        self._require_champion(number)

    def _require_champion(self, expected: str | None) -> None:
        champion = self.version(ALTOLLM, CHAMPION)
        found = None if champion is None else str(champion.version)
        if found != expected:
            raise InputError(
                f"{ALTOLLM}: another promotion has made version {found or NO_VERSION} champion meanwhile; run it again"
            )

    def roll_back(self) -> tuple[Any, Any]:
        """Give the title back to the champion's predecessor; returns the one that loses it, and that one.

        Raises InputError where there is none.

        The one that loses it is marked first, so that no later promotion brings it back by itself.
        """
        champion = self.version(ALTOLLM, CHAMPION)
        if champion is None or champion.tags.get(PREVIOUS, NO_VERSION) == NO_VERSION:
            raise InputError(f"{ALTOLLM}: there is no previous champion to roll back to")
        with _answering():
            self.client.set_model_version_tag(ALTOLLM, champion.version, ROLLED_BACK, "true")
            self.client.set_registered_model_alias(ALTOLLM, CHAMPION, champion.tags[PREVIOUS])
        self.settle()
        return champion, self.version(ALTOLLM, CHAMPION)

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
        path = self.artifact(version, DATA_ARTIFACT)
        return None if path is None else path.decode()

    def note(self, number: str, what: What, reason: str) -> None:
        """Leave a decision at version `number` of `altollm`."""
        with _answering():
            version = self.client.get_model_version(ALTOLLM, number)
            if (tag := decision_tag(version, what, reason)) is not None:
                self.client.set_model_version_tag(ALTOLLM, number, *tag)

    def decisions(self) -> list[Noted]:
        """All that are noted, of every version."""
        with _answering():
            versions = self.client.search_model_versions(f"name = '{ALTOLLM}'")
            return [noted for version in versions for noted in noted_at(version)]

    def kept(self, version: Any, benchmark: str, file: str) -> bytes | None:
        """A file of the results that a champion was crowned with; None where it has none of that name."""
        return self.artifact(version, f"benchmarks/{benchmark}/{file}")

    def artifact(self, version: Any, name: str) -> bytes | None:
        """A file kept with a version; None where there is none."""
        with _answering(), tempfile.TemporaryDirectory() as scratch:
            found = self.client.list_artifacts(version.run_id, str(PurePosixPath(name).parent))
            if name not in {one.path for one in found}:
                return None
            return Path(self.client.download_artifacts(version.run_id, name, scratch)).read_bytes()


def _keep(path: Path, text: str | None) -> None:
    """Write a file unless it is so already; None: there is to be none."""
    if text is None:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_text() != text:
        write_whole(path, text)


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
