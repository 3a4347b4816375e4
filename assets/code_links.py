"""Where an asset's code is, as Dagster's code references: files here, or pages of the repository's remote."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import dagster as dg

from data_contracts.errors import InputError

REPOSITORY = (
    "ALTO_CODE_URL"  # variable: https address of the repository at GitHub or GitLab; unset: files here
)
BRANCH = "ALTO_CODE_BRANCH"  # variable: branch or commit there; unset: main
PROJECT_FILE = "dvc.yaml"


def code_references(root: Path, places: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """Metadata for places (label, file below the root, text that begins the line; empty for none)."""
    with _beta_accepted():
        sources = [
            dg.LocalFileCodeReference(
                file_path=str(root / file), line_number=_line(root / file, start), label=label
            )
            for label, file, start in places
        ]
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=sources)}


@contextmanager
def _beta_accepted() -> Iterator[None]:
    """Without a warning a line of every command: these classes are beta in the version that the lock file pins."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield


def _line(path: Path, start: str) -> int | None:
    if not start or not path.exists():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.startswith(start)), None)


def linked_to_repository(assets: Sequence[dg.AssetsDefinition], root: Path) -> list[dg.AssetsDefinition]:
    """The assets with pages of the remote for their files where the environment names one.

    Raises InputError for an address that is neither GitHub's nor GitLab's.
    """
    repository = os.environ.get(REPOSITORY)
    if not repository:
        return list(assets)
    branch = os.environ.get(BRANCH, "main")
    with _beta_accepted():
        mapping = dg.AnchorBasedFilePathMapping(root / PROJECT_FILE, PROJECT_FILE)
        try:
            linked = dg.link_code_references_to_git(assets, repository.rstrip("/"), branch, mapping)
        except ValueError as error:
            raise InputError(
                f"{REPOSITORY}: only addresses with github or gitlab in them can be linked to; unset it"
            ) from error
    return cast(list[dg.AssetsDefinition], linked)
