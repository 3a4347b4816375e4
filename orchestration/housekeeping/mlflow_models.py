"""Registered versions that nobody needs, with their checkpoints, and runs that were deleted in MLflow.

A version's run stays, with its curves and figures; what goes is the version and then the checkpoint kept with it. The
run is marked before, so that a call that is killed in between leaves a mark by which the next one finds the checkpoint.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.runner.registry import CHAMPION, LEDGER_FILE, REGISTERED_MODELS, REGISTRATION
from jobs.runner.stage_lock import StageLock
from jobs.runner.tracking import trouble, use_project_store
from orchestration.automation.warm_start import FOLDER
from orchestration.housekeeping.committed import read_work_tree
from orchestration.housekeeping.part import LeftOut
from orchestration.housekeeping.rules import Found, Key, Rule
from orchestration.housekeeping.settings import Retention
from orchestration.promotion.champion import ALTOLLM, CHAMPION_FILE, NO_VERSION, PREVIOUS, TOKENIZER
from orchestration.promotion.decision import PROMOTION

VERSION, CHECKPOINT, DELETED_RUN = (
    "registered version",
    "checkpoint of a deleted version",
    "deleted MLflow run",
)
MARK = "alto.checkpoint_removed"  # tag of a run whose version is being, or was, deleted
EMBEDDED = "sqlite:///"
MODEL_FOLDER = "model"  # of a run's artifacts


@dataclass
class MlflowModels:
    """ledgers: of the versions there were at the last look, each kept with its version; None before, and where they
    could not be read."""

    root: Path
    retention: Retention
    ledgers: list[str] | None = field(default=None, init=False)

    @property
    def rules(self) -> Mapping[str, Rule]:
        versions = self.retention.model_versions
        return {
            VERSION: Rule(days=versions.days, newest=versions.newest),
            CHECKPOINT: Rule(days=0.0),
            DELETED_RUN: Rule(days=self.retention.deleted_mlflow_runs.days),
        }

    @contextmanager
    def held(self) -> Iterator[None]:
        """The locks of promotion and registration: on this file system no version gets an alias meanwhile."""
        with ExitStack() as stack:
            for name in (PROMOTION, REGISTRATION):
                stack.enter_context(StageLock(self.root, name))
            yield

    def find(self) -> list[Found]:
        use_project_store(self.root)
        store = os.environ["MLFLOW_TRACKING_URI"]
        if store.startswith(EMBEDDED) and not Path(store.removeprefix(EMBEDDED)).exists():
            self.ledgers = []
            return []  # asking would make it
        with self._answering() as client:
            models = list(REGISTERED_MODELS.values())
            versions = {model: pages(client.search_model_versions, f"name = '{model}'") for model in models}
            used = {version.run_id for model in models for version in versions[model]}
            found = self._versions(client, versions) + self._checkpoints(client, used)
            self.ledgers = [text for run_id in sorted(used) for text in ledger_of(client, run_id)]
            return found + deleted_runs(client, used)

    def _versions(self, client: Any, versions: Mapping[str, Sequence[Any]]) -> list[Found]:
        needed = self._needed(client, versions)
        tokenizers = {version.tags.get("data_version"): version.version for version in versions[TOKENIZER]}
        found = []
        for model, several in versions.items():
            for version in several:
                tokenizer = tokenizers.get(version.tags.get("tokenizer_data_version"))
                refers_to = (
                    {Key(VERSION, f"{TOKENIZER} {tokenizer}")} if model == ALTOLLM and tokenizer else ()
                )
                found.append(
                    Found(
                        key=Key(VERSION, f"{model} {version.version}"),
                        changed=max(version.creation_timestamp, version.last_updated_timestamp) / 1000,
                        bytes=artifacts_size(client, version.run_id, MODEL_FOLDER),
                        needed=needed.get((model, str(version.version)), ""),
                        refers_to=frozenset(refers_to),
                        group=model,
                    )
                )
        return found

    def _needed(self, client: Any, versions: Mapping[str, Sequence[Any]]) -> dict[tuple[str, str], str]:
        """Model and number of a version -> who refers to it."""
        ledger, files = " ".join(read_work_tree(self.root)), pinned_by_files(self.root)
        needed: dict[tuple[str, str], str] = {}
        champion = ""
        for model, several in versions.items():
            for version in several:
                name = model, str(version.version)
                if "stage" not in version.tags:
                    needed[name] = "it was registered by hand"
                elif version.tags.get("data_version", "-") in ledger:
                    needed[name] = "the ledger records the same checkpoint"
                elif name in files:
                    needed[name] = files[name]
            for registered in client.search_registered_models(f"name = '{model}'"):
                for alias, number in registered.aliases.items():
                    needed[model, str(number)] = f"it is the {alias}"
                    champion = str(number) if (model, alias) == (ALTOLLM, CHAMPION) else champion
        before = {
            str(version.version): version.tags.get(PREVIOUS, NO_VERSION) for version in versions[ALTOLLM]
        }
        for _ in range(self.retention.model_versions.past_champions):
            champion = before.get(champion, NO_VERSION)
            needed.setdefault((ALTOLLM, champion), "it was champion before, for a rollback")
        return needed

    def _checkpoints(self, client: Any, used: set[str]) -> list[Found]:
        experiments = [experiment.experiment_id for experiment in pages(client.search_experiments)]
        marked = pages(client.search_runs, experiments, f"tags.`{MARK}` = 'true'") if experiments else []
        ids = [run.info.run_id for run in marked if run.info.run_id not in used]
        return [
            Found(key=Key(CHECKPOINT, one), changed=0.0, bytes=artifacts_size(client, one, MODEL_FOLDER))
            for one in ids
        ]

    def remove(self, keys: Sequence[Key]) -> None:
        with self._answering() as client:
            for key in keys:
                if key.kind == VERSION:
                    remove_version(client, *key.name.split(" "))
                elif key.kind == CHECKPOINT:
                    remove_checkpoint(client, key.name)
                else:
                    purge_run(client, key.name)

    @contextmanager
    def _answering(self) -> Iterator[Any]:
        """Raises LeftOut where MLflow does not answer, or refuses."""
        use_project_store(self.root)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            yield MlflowClient()
        except (MlflowException, OSError) as error:
            raise LeftOut(trouble(error, "so what is registered is left out; try again")) from None


def remove_version(client: Any, model: str, number: str) -> None:
    """Unless it has got an alias meanwhile, from a machine that does not share our locks."""
    version = client.get_model_version(model, number)
    (registered,) = client.search_registered_models(f"name = '{model}'")
    if str(number) in {str(aliased) for aliased in registered.aliases.values()}:
        return
    client.set_tag(version.run_id, MARK, "true")
    client.delete_model_version(model, number)
    remove_checkpoint(client, version.run_id)


def remove_checkpoint(client: Any, run_id: str) -> None:
    """Unless another version has the same."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if not client.search_model_versions(f"run_id = '{run_id}'"):
        get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts(MODEL_FOLDER)
        client.delete_tag(run_id, MARK)


def ledger_of(client: Any, run_id: str) -> Iterator[str]:
    """What is kept with a registered version says which data it was trained on; one registered by hand has none."""
    if LEDGER_FILE in (entry.path for entry in client.list_artifacts(run_id)):
        with TemporaryDirectory() as folder:
            yield Path(client.download_artifacts(run_id, LEDGER_FILE, folder)).read_text()


def deleted_runs(client: Any, used: set[str]) -> list[Found]:
    """Where MLflow's database is ours; a server keeps to itself when a run was deleted, and purges it itself."""
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from mlflow.tracking._tracking_service.utils import _get_store

    store = _get_store()
    if not hasattr(store, "ManagedSessionMaker"):
        return []
    with store.ManagedSessionMaker() as session:
        query = session.query(SqlRun.run_uuid, SqlRun.deleted_time).filter(
            SqlRun.lifecycle_stage == "deleted"
        )
        deleted = [(run_id, (milliseconds or 0) / 1000) for run_id, milliseconds in query.all()]
    return [
        Found(
            key=Key(DELETED_RUN, run_id),
            changed=when,
            bytes=artifacts_size(client, run_id),
            needed="a registered version has its checkpoint" if run_id in used else "",
        )
        for run_id, when in deleted
    ]


def purge_run(client: Any, run_id: str) -> None:
    """As `mlflow gc` does, which would also purge runs whose checkpoint a registered version has."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.tracking._tracking_service.utils import _get_store

    get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts()
    _get_store()._hard_delete_run(run_id)


def artifacts_size(client: Any, run_id: str, folder: str | None = None) -> int:
    """Of all files below a folder of a run's artifacts."""
    entries = client.list_artifacts(run_id, folder)
    return sum(
        artifacts_size(client, run_id, entry.path) if entry.is_dir else entry.file_size or 0
        for entry in entries
    )


def pages(search: Any, *arguments: Any) -> list[Any]:
    """What a search finds, all of it."""
    found, token = [], None
    while True:
        page = search(*arguments, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def pinned_by_files(root: Path) -> dict[tuple[str, str], str]:
    """Versions that the file of the champion names, or from which `params.yaml` starts a training."""
    pinned = {}
    if (root / CHAMPION_FILE).exists():
        for model, version in json.loads((root / CHAMPION_FILE).read_text()).items():
            pinned[model, str(version["version"])] = f"{CHAMPION_FILE} names it"
    text = (root / "params.yaml").read_text()
    for model, number in re.findall(rf"{FOLDER}/({TOKENIZER}|{ALTOLLM})-(\d+)\b", text):
        pinned[model, number] = "training starts from it (params.yaml)"
    return pinned
