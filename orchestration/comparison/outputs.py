"""Files of recorded outputs by data version, from DVC's cache; on request from its remote."""

import json
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError

from jobs.runner.remote_outputs import fetch_folder


class RecordedOutputs:
    """Of every version ever recorded, as far as the cache still has them. fetch: ask the default remote for others."""

    def __init__(self, repo: Repo, fetch: bool) -> None:
        self._repo = repo
        self._fetch = fetch and bool(repo.config["core"].get("remote"))
        self._files: dict[str, dict[str, Path]] = {}

    def files(self, data_version: str) -> dict[str, Path]:
        """Path in the output -> file in the cache, which is not to be changed; empty where it is not whole there.

        Raises InputError where the remote fails.
        """
        if data_version not in self._files:
            found = self._cached(data_version)
            if not found and self._fetch:
                fetch_folder(self._repo, HashInfo("md5", data_version))
                found = self._cached(data_version)
            self._files[data_version] = found
        return self._files[data_version]

    def read(self, data_version: str, name: str) -> bytes | None:
        path = self.files(data_version).get(name)
        return None if path is None else path.read_bytes()

    def rows(self, address: str, data_version: str) -> int | None:
        """Accepted rows of a data set; None for what has no rows, and where they are not known."""
        report = self.read(data_version, "report.json") if address.startswith("prepare_") else None
        return None if report is None else json.loads(report)["figures"].get("rows_accepted")

    def _cached(self, data_version: str) -> dict[str, Path]:
        cache = self._repo.cache.local
        try:
            tree = Tree.load(cache, HashInfo("md5", data_version))
        except (FileNotFoundError, ObjectFormatError):
            return {}
        files = {"/".join(key): Path(cache.oid_to_path(info.value)) for key, _, info in tree}
        return files if all(path.is_file() for path in files.values()) else {}


@contextmanager
def recorded_outputs(root: Path, fetch: bool) -> Iterator[RecordedOutputs]:
    # DVC resolves stage files against the working directory, whatever root it was given.
    with chdir(root), Repo() as repo:
        yield RecordedOutputs(repo, fetch)
