"""Files in DVC's cache, and in its default remote, that no kept ledger names.

`dvc gc` reads the whole pipeline at each commit to know that, which takes seconds a commit with a thousand shards, and
knows neither ages, nor registered versions, nor jobs that are not recorded yet. Here whatever looks like a hash of DVC
in a `dvc.lock` or `*.dvc` file, or in the ledger kept with a registered version, is a reference, so more is kept than
by `dvc gc`, never less (a test compares the two). What only the run cache names is kept while that entry is young.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc_data.hashfile.db import HashFileDB, get_index

from assets.drift import CHAMPION_DATA_FILE
from data_contracts.errors import InputError, first_line
from jobs.runner.exchange import Unreachable
from jobs.runner.remote_outputs import remote_explained
from orchestration.housekeeping.committed import read_committed, read_work_tree
from orchestration.housekeeping.mlflow_models import MlflowModels
from orchestration.housekeeping.part import LeftOut
from orchestration.housekeeping.rules import SECONDS_A_DAY, Found, Key, Rule
from orchestration.housekeeping.settings import Retention
from orchestration.housekeeping.staged_jobs import returned_entries
from orchestration.housekeeping.work_folders import live_folders
from orchestration.promotion.champion import CHAMPION_FILE

CACHED, REMOTE = "file in the DVC cache", "file in the DVC remote"
HASH = re.compile(r"\b[0-9a-f]{32}\b(?:\.dir)?")
FOLDER = ".dir"
AT_ONCE = 1000


class Stored(NamedTuple):
    """An object. changed: when it came here; of a local one also when it was last linked."""

    name: str
    size: int
    changed: float


@dataclass
class DvcCache:
    root: Path
    retention: Retention
    models: MlflowModels  # has looked before
    now: float  # seconds since the epoch

    @property
    def rules(self) -> Mapping[str, Rule]:
        return dict.fromkeys((CACHED, REMOTE), Rule(days=self.retention.dvc_cache.days))

    @contextmanager
    def held(self) -> Iterator[None]:
        """DVC's lock: nothing is cached, recorded, pulled or pushed from this work tree meanwhile."""
        with chdir(self.root), Repo(_wait_for_lock=True) as repo, lock_repo(repo):
            yield

    def find(self) -> list[Found]:
        with chdir(self.root), Repo() as repo:
            try:
                named = self._named(Path(repo.stage_cache.cache_dir))
                found = found_in(repo.cache.local, CACHED, named)
                if self.retention.dvc_cache.remote and repo.config["core"].get("remote"):
                    found += self._find_remote(repo, named)
            except (InputError, Unreachable, OSError) as error:
                raise LeftOut(f"DVC cache: {first_line(error)}") from None
        return found

    def _find_remote(self, repo: Repo, named: dict[str, str]) -> list[Found]:
        running = bool(live_folders(self.root))
        pushed = dict.fromkeys(
            hashes_in(returned_entries(self.root)), "a job has pushed it that is not recorded yet"
        )
        with remote_explained(repo):
            remote = repo.cloud.get_remote_odb(command="gc -c")
            found = found_in(remote, REMOTE, {**pushed, **named}, listings=repo.cache.local)
        if not running:
            return found
        # Who pushes leaves out what is there already, also what nothing named until then.
        return [replace(one, needed=one.needed or "jobs run, which may push it") for one in found]

    def _named(self, run_cache: Path) -> dict[str, str]:
        """Hash -> what names it. Raises LeftOut where it is not known what registered versions need."""
        if self.models.ledgers is None:
            raise LeftOut("DVC cache: MLflow does not say which data its versions were trained on; try again")
        kept = self.retention.dvc_cache
        young = self.now - kept.days * SECONDS_A_DAY
        champion = [self.root / name for name in (CHAMPION_FILE, CHAMPION_DATA_FILE)]
        pinned = [file.read_text() for file in champion if file.exists()]
        entries = [file.read_text() for file in run_cache.glob("*/*/*") if file.stat().st_mtime > young]
        return {
            **dict.fromkeys(hashes_in(entries), "a young entry of the run cache names it"),
            **dict.fromkeys(hashes_in(self.models.ledgers), "the ledger of a registered version names it"),
            **dict.fromkeys(hashes_in(pinned), "the champion was made from it"),
            **dict.fromkeys(hashes_in(read_committed(self.root, kept.commits)), "a commit's ledger names it"),
            **dict.fromkeys(hashes_in(read_work_tree(self.root)), "the ledger names it"),
        }

    def remove(self, keys: Sequence[Key]) -> None:
        with chdir(self.root), Repo() as repo:
            try:
                remove_from(repo.cache.local, [key.name for key in keys if key.kind == CACHED])
                if names := [key.name for key in keys if key.kind == REMOTE]:
                    with remote_explained(repo):
                        remove_from(remote := repo.cloud.get_remote_odb(command="gc -c"), names)
                        get_index(remote).clear()  # what DVC believes to be there
            except (InputError, Unreachable, DvcException, OSError) as error:
                raise LeftOut(f"DVC cache: {first_line(error)}") from None


def hashes_in(texts: Iterable[str]) -> set[str]:
    return {name for text in texts for name in HASH.findall(text)}


def found_in(
    place: HashFileDB, kind: str, named: Mapping[str, str], listings: HashFileDB | None = None
) -> list[Found]:
    """Every object of a place; a folder's listing refers to the files in it.

    listings: where else to look for the listings of folders, first.
    """
    stored = list(stored_in(place))
    names = {one.name for one in stored}
    below = {name: files_of(name, place, listings) for name in names | named.keys() if name.endswith(FOLDER)}
    # Of a folder that is needed and whose listing is not here, the files are needed all the same.
    absent = {file: named[name] for name in named.keys() - names if name in below for file in below[name]}
    return [
        Found(
            key=Key(kind, one.name),
            changed=one.changed,
            bytes=one.size,
            needed=named.get(one.name) or absent.get(one.name, ""),
            refers_to=frozenset(Key(kind, file) for file in below.get(one.name, ())),
        )
        for one in stored
    ]


def stored_in(place: HashFileDB) -> Iterator[Stored]:
    if place.fs.protocol == "local":
        for path in Path(place.path).glob("[0-9a-f][0-9a-f]/*"):
            if HASH.fullmatch(name := path.parent.name + path.name):
                status = path.stat()
                yield Stored(name, status.st_size, max(status.st_mtime, status.st_ctime))
        return
    for path, about in place.fs.fs.find(place.path, detail=True).items():
        if HASH.fullmatch(name := "".join(path.rsplit("/", 2)[-2:])):
            yield Stored(name, about["size"], _modified(about))


def _modified(about: Mapping[str, Any]) -> float:
    return float(about["LastModified"].timestamp() if "LastModified" in about else about["mtime"])


def files_of(name: str, *places: HashFileDB | None) -> list[str]:
    """Of a folder; none where no place has its listing, without which nobody can tell what it held."""
    for place in reversed(places):
        if place is not None and place.exists(name):
            return [entry["md5"] for entry in json.loads(place.fs.cat_file(place.oid_to_path(name)))]
    return []


def remove_from(place: HashFileDB, names: Sequence[str]) -> None:
    paths = [place.oid_to_path(name) for name in names]
    if place.fs.protocol == "local":
        for path in paths:
            Path(path).unlink(missing_ok=True)
        return
    for start in range(0, len(paths), AT_ONCE):
        place.fs.remove(paths[start : start + AT_ONCE])
