"""Outputs that are recorded and lie in the DVC remote, not here: what a job's inputs are by the ledger alone, whether
the remote has them, and whether it has what a job says it pushed."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from dvc.config import NoRemoteError
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException, FileTransferError
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from data_contracts.errors import InputError, first_line
from jobs.acquisition.safe_names import UnsafeName, relative_path
from jobs.runner.dvc_stages import LockedStages, recorded_hash
from jobs.runner.exchange import Unreachable
from jobs.runner.staged_order import ReturnedOutput

MAX_LISTING_BYTES = 1 << 30
REQUESTS_AT_ONCE = 32


class ListedFile(BaseModel):
    """One file of a folder, as DVC lists it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    md5: str = Field(pattern="^[0-9a-f]{32}$")
    relpath: str


LISTING = TypeAdapter(list[ListedFile])


@contextmanager
def remote_explained(repo: Repo) -> Iterator[None]:
    """In one line, raises Unreachable where a remote does not answer, and InputError for all else that it raises."""
    try:
        yield
    except NoRemoteError:
        raise InputError(
            "without a shared work tree, data goes through a DVC remote: add one with `dvc remote add --default`"
        ) from None
    except (DvcException, OSError, *_bucket_errors()) as error:
        said = f"DVC remote {repo.config['core'].get('remote')}: {first_line(error)}"
        if _does_not_answer(error):
            raise Unreachable(said) from None
        raise InputError(f"{said}; check address and credentials (environment or AWS files)") from None


def _bucket_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError)


def _does_not_answer(error: BaseException | None) -> bool:
    """DVC keeps to itself what broke off a transfer; where a remote refuses us, it is when it is listed before."""
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError

    gone = (FileTransferError, ConnectionError, TimeoutError, NoConnection, HTTPClientError)
    return error is not None and (
        isinstance(error, gone) or _does_not_answer(error.__cause__ or error.__context__)
    )


def recorded_inputs(stages: LockedStages, stage: PipelineStage) -> list[Output]:
    """Outputs of other stages that a stage reads. Raises InputError naming those that are not recorded."""
    outputs = [each for dependency in stage.deps for each in stages.outputs_in(dependency).values()]
    unrecorded = [output.stage.addressing for output in outputs if not output.hash_info]
    if unrecorded:
        raise InputError(f"{stage.addressing} needs {', '.join(unrecorded)}: run the stage")
    return outputs


def save_recorded_inputs(stages: LockedStages, stage: PipelineStage) -> None:
    """As DVC's `save_deps`, but outputs of other stages are what the ledger says, whether they are here or not.

    Raises InputError where something is missing, or is here and is not what the ledger says.
    """
    recorded_inputs(stages, stage)
    for dependency in stage.deps:
        outputs = list(stages.outputs_in(dependency).values())
        if isinstance(dependency, ParamsDependency) or not outputs:
            dependency.save()
            continue
        hash_info, meta = recorded_hash(dependency.def_path, outputs, partial(listing, stages.repo))
        whole = dependency.exists and not stages.missing_partitions(dependency)
        if whole and dependency.get_hash() != hash_info:
            raise InputError(
                f"{dependency.def_path} is not what dvc.lock records: run the stages that make it, or"
                f" `dvc checkout` it; a job elsewhere reads what is recorded"
            )
        dependency.hash_info, dependency.meta = hash_info, meta


def listing(repo: Repo, hash_info: HashInfo) -> Tree:
    """What files a recorded folder has; fetched from the remote once. Raises InputError or Unreachable."""
    cache, name = repo.cache.local, str(hash_info.value)
    if not cache.exists(name):
        try:
            with remote_explained(repo):
                content = read_listing(repo.cloud.get_remote_odb(command="pull"), name)
        except ValueError as error:
            raise InputError(f"{error}; run the stage that made it again") from None
        cache.add_bytes(name, content)
    return Tree.load(cache, hash_info)


def require_pushed(root: Path, entries: Mapping[str, Any]) -> None:
    """Raises InputError naming the stages of these entries whose output the remote lacks.

    DVC pushes a folder's listing after all its files, so the listing says that they are there.
    Raises Unreachable where the remote cannot be asked.
    """
    hashes = {name: entry["outs"][0]["md5"] for name, entry in entries.items()}
    with chdir(root), Repo() as repo, remote_explained(repo):
        remote = repo.cloud.get_remote_odb(command="push")
        there = (
            set(remote.list_oids_exists(list(hashes.values()), jobs=REQUESTS_AT_ONCE)) if hashes else set()
        )
    if missing := [name for name, value in hashes.items() if value not in there]:
        raise InputError(f"{', '.join(missing)}: not in the DVC remote; run `dvc push {' '.join(missing)}`")


def verify_pushed(root: Path, output: ReturnedOutput) -> None:
    """Look whether the remote has the folder that a job says it made, whole, and keep its listing in the cache.

    No lock is held: it takes a while. Raises ValueError for what is wrong with the folder, Unreachable or InputError
    where the remote cannot be asked.
    """
    with chdir(root), Repo() as repo:
        with remote_explained(repo):
            remote = repo.cloud.get_remote_odb(command="pull")
            content = read_listing(remote, output.md5)
            hashes = listed_hashes(content, output)
            there = set(remote.list_oids_exists(hashes, jobs=REQUESTS_AT_ONCE))
        if missing := set(hashes) - there:
            raise ValueError(f"{len(missing)} of its files are not in the DVC remote, {min(missing)} for one")
        repo.cache.local.add_bytes(output.md5, content)


def read_listing(remote: HashFileDB, name: str) -> bytes:
    """A folder's listing, whose name is the MD5 of its bytes. Raises ValueError."""
    path = remote.oid_to_path(name)
    try:
        if (remote.fs.size(path) or 0) > MAX_LISTING_BYTES:
            raise ValueError(f"the listing {name} is too long")
        content: bytes = remote.fs.cat_file(path)
    except FileNotFoundError:
        raise ValueError(f"the listing {name} is not in the DVC remote") from None
    if hashlib.md5(content).hexdigest() != name.removesuffix(".dir"):
        raise ValueError(f"the listing {name} in the DVC remote is not what its name says")
    return content


def listed_hashes(content: bytes, output: ReturnedOutput) -> list[str]:
    """Hashes of the files in a listing. Raises ValueError for names that lead elsewhere, or another number of files."""
    try:
        files = LISTING.validate_json(content)
        names = {str(relative_path(file.relpath)) for file in files}
    except UnsafeName as error:
        raise ValueError(f"its listing names {error}") from None
    except ValidationError as error:
        raise ValueError(f"its listing: {error.errors()[0]['msg']}") from None
    if names != {file.relpath for file in files} or not len(names) == len(files) == output.nfiles:
        raise ValueError("its listing does not fit the entry")
    if "report.json" not in names:
        raise ValueError("its listing has no report.json")
    return sorted({file.md5 for file in files})


def fetch_folder(repo: Repo, hash_info: HashInfo) -> None:
    """Bring a folder's files from the remote into the cache; where a listing is, DVC takes the files to be, too."""
    files = {file for _, _, file in listing(repo, hash_info)}
    with remote_explained(repo):
        result = repo.cloud.pull(files)
    if result.failed:
        raise InputError(f"{len(result.failed)} files could not be fetched from the DVC remote; run it again")
