"""What can be compared: registered versions, DVC experiments, revisions of git, and the work tree as it is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from data_contracts.errors import InputError
from jobs.runner.layout import MODEL_STAGES, PARAMETERS_OF, STAGES, stage_of_path
from jobs.runner.lineage import Lineage, read_lineage
from jobs.runner.model_card import MEASURING_STAGES
from jobs.runner.registry import CHALLENGER, CHAMPION, LEDGER_FILE, PARAMETERS_FILE, REGISTERED_MODELS
from jobs.runner.staged_clone import git
from jobs.runner.tracking import flatten, git_commit
from orchestration.promotion.champion import ALTOLLM, Registry
from orchestration.promotion.evidence import Kept

WORKSPACE = "workspace"
EXPERIMENTS = "refs/exps"  # where DVC keeps them in git
DEFAULT_BEFORE, DEFAULT_AFTER = f"{ALTOLLM}@{CHAMPION}", f"{ALTOLLM}@{CHALLENGER}"
REGISTERED = re.compile(
    rf"(models:/)?(?P<model>{'|'.join(REGISTERED_MODELS.values())})(/(?P<number>\d+)|@(?P<alias>[\w-]+))"
)


@dataclass(frozen=True)
class Entry:
    """What the ledger says of one output. code: declared file or folder -> MD5. read: path of an output -> its hash."""

    data_version: str
    code: Mapping[str, str] = field(default_factory=dict)
    read: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Version:
    """One side of a comparison.

    name: for people. commit: of the code, with `-dirty` where files differed from it; empty where nobody knows.
    parameters: dotted key -> value. entries: address -> what was recorded. has_ledger: False where that is not known.
    kept: results that are kept with a version.
    """

    name: str
    commit: str
    parameters: Mapping[str, Any]
    entries: Mapping[str, Entry]
    has_ledger: bool = True
    kept: Kept | None = None

    def measured(self, address: str) -> Entry | None:
        """Entry of a benchmark, where it measured just the models of this version."""
        entry = self.entries.get(address)
        if entry is None:
            return None
        made = {path: self.entries.get(stage_of_path(path) or "") for path in entry.read}
        current = all(one is None or one.data_version == entry.read[path] for path, one in made.items())
        return entry if current else None


def find_version(root: Path, wanted: str) -> Version:
    """Raises InputError where nothing is called that, or not enough of it is known."""
    lineage = read_lineage(root)
    if wanted == WORKSPACE:
        return _workspace(root)
    if (registered := REGISTERED.fullmatch(wanted)) is not None:
        return _registered(lineage, registered)
    return _revision(root, wanted)


def _workspace(root: Path) -> Version:
    ledger = root / LEDGER_FILE
    return Version(
        name=WORKSPACE,
        commit=git_commit(root),
        parameters=_parameters((root / PARAMETERS_FILE).read_text()),
        entries=_entries(ledger.read_text() if ledger.exists() else ""),
    )


def _revision(root: Path, wanted: str) -> Version:
    commit = _commit(root, wanted)
    has_ledger = git(root, "ls-tree", "--name-only", commit, "--", LEDGER_FILE) != ""
    return Version(
        name=wanted if commit.startswith(wanted) else f"{wanted} ({commit[:7]})",
        commit=commit,
        parameters=_parameters(git(root, "show", f"{commit}:./{PARAMETERS_FILE}")),
        entries=_entries(git(root, "show", f"{commit}:./{LEDGER_FILE}") if has_ledger else ""),
        has_ledger=has_ledger,
    )


def _commit(root: Path, wanted: str) -> str:
    """Of an experiment's name, else of a revision of git. Raises InputError."""
    listed = git(root, "for-each-ref", "--format=%(refname) %(objectname)", EXPERIMENTS).splitlines()
    named = {
        commit
        for name, commit in map(str.split, listed)
        if name.removeprefix(f"{EXPERIMENTS}/").split("/")[2:]
        == [wanted]  # below two folders of the baseline
    }
    if len(named) > 1:
        raise InputError(f"{wanted}: several experiments are called so; name the revision (`dvc exp show`)")
    revision = f"{named.pop() if named else wanted}^{{commit}}"
    try:
        return git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", revision).strip()
    except InputError:
        raise InputError(
            f"{wanted}: neither {WORKSPACE}, nor an experiment or revision, nor a version such as {ALTOLLM}/3 or"
            f" {DEFAULT_BEFORE}"
        ) from None


def _registered(lineage: Lineage, wanted: re.Match[str]) -> Version:
    registry = Registry(lineage.root)
    model, number, alias = wanted["model"], wanted["number"], wanted["alias"]
    version = registry.numbered(model, number) if number else registry.version(model, alias)
    if version is None:
        raise InputError(
            f"{wanted[0]}: no such version is registered; see the registry in MLflow, or `alto sync`"
        )
    parameters, ledger = (registry.artifact(version, name) for name in (PARAMETERS_FILE, LEDGER_FILE))
    if parameters is None:
        raise InputError(
            f"{wanted[0]}: was not trained here, so neither parameters nor data are kept with it"
        )
    stage = next(stage for stage, name in REGISTERED_MODELS.items() if name == model)
    stages = {stage, *lineage.all_upstream(stage)}
    for name in MEASURING_STAGES:
        if stages.issuperset(set(MODEL_STAGES) & (read := set(lineage.stage(name).upstream))):
            stages |= {name, *read}
    return Version(
        name=f"{model} {version.version}" + (f" ({alias})" if alias else ""),
        commit=version.tags.get("git_commit", ""),
        parameters=_of_stages(_parameters(parameters.decode()), stages),
        entries={
            address: entry
            for address, entry in _entries(ledger.decode() if ledger else "").items()
            if address.partition("@")[0] in stages
        },
        has_ledger=ledger is not None,
        kept=partial(registry.kept, version) if model == ALTOLLM else None,
    )


def _of_stages(parameters: Mapping[str, Any], stages: set[str]) -> dict[str, Any]:
    """Those that these stages may read: without the sections of other stages."""
    others = set(STAGES) - {PARAMETERS_OF.get(stage, stage) for stage in stages}
    return {key: value for key, value in parameters.items() if key.partition(".")[0] not in others}


def _parameters(text: str) -> dict[str, Any]:
    return flatten(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _entries(text: str) -> dict[str, Entry]:
    ledger = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    return {address: _entry(content) for address, content in ledger.get("stages", {}).items()}


def _entry(content: Mapping[str, Any]) -> Entry:
    read = {dependency["path"]: dependency["md5"] for dependency in content.get("deps", [])}
    return Entry(
        data_version=content["outs"][0]["md5"],
        code={path: version for path, version in read.items() if stage_of_path(path) is None},
        read={path: version for path, version in read.items() if stage_of_path(path) is not None},
    )
