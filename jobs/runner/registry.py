"""Checkpoints, recorded or made elsewhere, as versions in the MLflow model registry."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from data_contracts.errors import InputError
from jobs.runner.experiments import committed_versions
from jobs.runner.layout import StageAddress, output_folder
from jobs.runner.ledger import Recorded
from jobs.runner.lineage import Lineage, read_lineage
from jobs.runner.model_card import ModelCard, model_card
from jobs.runner.stage_lock import StageLock
from jobs.runner.staleness import StageState
from jobs.runner.tracking import (
    EXPERIMENT_TAG,
    TRACKED_STAGES,
    experiment_name,
    find_or_create_experiment,
    use_project_store,
)
from jobs.serving.package import package_segmenter

REGISTERED_MODELS = {"tokenizer_stage1_5": "alto-tokenizer", "altollm_grpo": "altollm"}
TOKENIZER = StageAddress("tokenizer_stage1_5")
REGISTRATION = (
    "registration"  # held meanwhile, for a version that is to become challenger must not be deleted
)
CHALLENGER, CHAMPION = "challenger", "champion"  # aliases
PARAMETERS_FILE, LEDGER_FILE = "params.yaml", "dvc.lock"  # kept with every version
LEDGER_TAG = "ledger"  # hash of the one that is kept
IMPORTED = "imported"  # stands for a profile where a checkpoint has none


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    model: str
    version: str
    data_version: str
    how: Literal["registered", "already registered"]


def register_recorded(root: Path, states: Sequence[StageState]) -> list[RegisteredVersion]:
    """Register the recorded output of each registered stage, unless a version with its hash exists.

    states: of every address, as they are now.

    Only what the ledger records is registered, so results of sweeps never are; and those of experiments only once
    the ledger that records them is committed. Raises InputError where a stage has no record, or such a one.
    """
    use_project_store(root)
    from mlflow import MlflowClient

    client = MlflowClient()
    lineage = read_lineage(root)
    with StageLock(root, REGISTRATION):
        return [
            register(client, lineage, states, StageAddress(stage), model)
            for stage, model in REGISTERED_MODELS.items()
        ]


def register(
    client: Any, lineage: Lineage, states: Sequence[StageState], address: StageAddress, model: str
) -> RegisteredVersion:
    root, profile = lineage.root, lineage.profile
    recorded = recorded_version(states, address)
    ensure_model(client, model)
    known = find_version(client, model, recorded.data_version)
    if known is None:
        refuse_experiment(client, lineage, states, address)
    output = output_folder(profile, address)
    if known is None and not (root / output).exists():
        raise InputError(f"{address} cannot be registered: its output is not here; `dvc pull {output}`")
    card = model_card(lineage, states, address)
    if known is not None:
        describe(client, root, known, card)
        client.set_registered_model_alias(model, CHALLENGER, known.version)
        return known
    run = source_run(client, root, recorded, profile)
    with TemporaryDirectory() as scratch:
        client.log_artifacts(run.info.run_id, str(artifact_folder(root, profile, address, scratch)), "model")
    client.log_artifact(run.info.run_id, str(root / PARAMETERS_FILE))
    version = client.create_model_version(
        model,
        source=f"{run.info.artifact_uri}/model",
        run_id=run.info.run_id,
        tags={
            "data_version": recorded.data_version,
            "stage": address.stage,
            "profile": profile,
            "git_commit": run.data.tags.get("git_commit", ""),
            "parameters": f"runs:/{run.info.run_id}/{PARAMETERS_FILE}",
            **trained_on(states, address),
        },
    )
    registered = RegisteredVersion(
        model=model, version=version.version, data_version=recorded.data_version, how="registered"
    )
    describe(client, root, registered, card)
    client.set_registered_model_alias(model, CHALLENGER, version.version)
    return registered


def refuse_experiment(
    client: Any, lineage: Lineage, states: Sequence[StageState], address: StageAddress
) -> None:
    """Raises InputError where an experiment made the checkpoint, or one that it rests on, and no commit records it."""
    stages = {address.stage, *lineage.all_upstream(address.stage)} & TRACKED_STAGES
    committed = committed_versions(lineage.root)
    for state in states:
        made = state.recorded
        if (
            made is None
            or state.address.stage not in stages
            or committed.get(str(state.address)) == made.data_version
        ):
            continue
        runs = runs_of(client, lineage.profile, made)
        experiments = [run.data.tags.get(EXPERIMENT_TAG) for run in runs]
        if experiments and all(experiments):
            raise InputError(
                f"{address} is not registered: experiment {experiments[0]} made {state.address}. To keep it, commit"
                " params.yaml and dvc.lock with its result applied, then `alto sync`"
            )


def runs_of(client: Any, profile: str, made: Recorded) -> list[Any]:
    """MLflow's runs of the job that makes a recorded output, the newest first."""
    experiment = client.get_experiment_by_name(experiment_name(profile))
    if experiment is None:
        return []
    filters = f"tags.stage = '{made.address.stage}' and tags.fingerprint = '{made.fingerprint}'"
    return list(client.search_runs([experiment.experiment_id], filters))


def describe(client: Any, root: Path, version: RegisteredVersion, card: ModelCard) -> None:
    """Bring card, ledger and tags of a version up to date: benchmarks run after it was registered."""
    known = client.update_model_version(version.model, version.version, card.text())
    ledger = root / LEDGER_FILE
    tags = card.tags() | {LEDGER_TAG: content_hash([ledger])}
    if known.tags.get(LEDGER_TAG) != tags[LEDGER_TAG]:
        client.log_artifact(known.run_id, str(ledger))
    for name, value in tags.items():
        if known.tags.get(name) != value:
            client.set_model_version_tag(version.model, version.version, name, value)


def artifact_folder(root: Path, profile: str, address: StageAddress, scratch: str) -> Path:
    """What is kept with a version: the checkpoint or, of a language model, what `mlflow models serve` runs."""
    output = root / output_folder(profile, address)
    if address.stage != "altollm_grpo":
        return output
    packed = Path(scratch, "model")
    package_segmenter(output, root / output_folder(profile, TOKENIZER), packed)
    return packed


def register_folder(root: Path, folder: Path, model: str, licence: str) -> RegisteredVersion:
    """Register a checkpoint made outside the lineage, unless there is a version of the same files.

    Aliases stay as they are. Such a version has no tag `stage`: it belongs to no lineage.
    """
    from alto_models.checkpoint import CONFIG_FILE
    from alto_models.weight_files import TENSORS_FILE

    use_project_store(root)
    from mlflow import MlflowClient

    client = MlflowClient()
    ensure_model(client, model)
    files = [folder / CONFIG_FILE, folder / TENSORS_FILE]
    data_version = content_hash(files)
    known = find_version(client, model, data_version)
    if known is not None:
        return known
    experiment = find_or_create_experiment(client, IMPORTED, root)
    run = client.create_run(experiment, run_name=folder.name)
    for file in files:
        client.log_artifact(run.info.run_id, str(file), "model")
    client.set_terminated(run.info.run_id)
    version = client.create_model_version(
        model,
        source=f"{run.info.artifact_uri}/model",
        run_id=run.info.run_id,
        tags={"data_version": data_version, "licence": licence},
    )
    return RegisteredVersion(
        model=model, version=version.version, data_version=data_version, how="registered"
    )


def content_hash(files: Sequence[Path]) -> str:
    """SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def find_version(client: Any, model: str, data_version: str) -> RegisteredVersion | None:
    for version in client.search_model_versions(f"name = '{model}'"):
        if version.tags.get("data_version") == data_version:
            return RegisteredVersion(
                model=model, version=version.version, data_version=data_version, how="already registered"
            )
    return None


def trained_on(states: Sequence[StageState], address: StageAddress) -> dict[str, str]:
    """Which mask tokenizer a language model's mask tokens belong to."""
    if address.stage != "altollm_grpo":
        return {}
    return {"tokenizer_data_version": recorded_version(states, TOKENIZER).data_version}


def recorded_version(states: Sequence[StageState], address: StageAddress) -> Recorded:
    """Raises InputError where what is recorded is not of code, parameters and inputs as they are."""
    for state in states:
        if state.address == address and state.recorded is not None and state.stands:
            return state.recorded
    raise InputError(f"{address} has no up-to-date result: run it before registering")


def ensure_model(client: Any, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException:  # it exists
        client.get_registered_model(model)


def source_run(client: Any, root: Path, recorded: Recorded, profile: str) -> Any:
    """The MLflow run that made the checkpoint; a new one where it was made without MLflow."""
    runs = runs_of(client, profile, recorded)
    if runs:
        return runs[0]
    address = recorded.address
    experiment = find_or_create_experiment(client, profile, root)
    run = client.create_run(
        experiment, run_name=str(address), tags={"stage": address.stage, "profile": profile}
    )
    client.set_terminated(run.info.run_id)
    return run
