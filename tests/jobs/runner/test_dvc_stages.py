"""What the runner asks of DVC once for all stages is what DVC itself says of each."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from data_contracts.errors import InputError
from jobs.runner.layout import StageAddress
from jobs.runner.ledger import Ledger
from tests.jobs.runner import toy_project
from tests.jobs.runner.toy_project import other_door, set_parameters

ADDRESSES = ("prepare_sa1b@a", "prepare_sa1b@b", "prepare_sa1b@c", "tokenizer_stage1", "tokenizer_benchmark")


def edit_parameter(root: Path) -> None:
    set_parameters(root, {"prepare_sa1b": {"suffix": "other"}, "tokenizer_stage1": {"round_to": 7}})


def edit_raw(root: Path) -> None:
    (root / "raw" / "a.txt").write_text("edited\n")


def lose_raw(root: Path) -> None:
    (root / "raw" / "b.txt").unlink()


def lose_output(root: Path) -> None:
    shutil.rmtree(root / "models")


def lose_cache(root: Path) -> None:
    shutil.rmtree(root / ".dvc" / "cache")


def drop_parameter(root: Path) -> None:
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("seed: 1\n", ""))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = toy_project.create(tmp_path_factory.mktemp("toy") / "project")
    for address in ADDRESSES:
        other_door(root, address)
    return root


@pytest.fixture
def root(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / "project")


def flat(status: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for path, what in status.items():
        found |= (
            {f"{path}:{key}": value for key, value in what.items()}
            if isinstance(what, dict)
            else {path: what}
        )
    return found


@pytest.mark.parametrize(
    "change", [None, edit_parameter, edit_raw, lose_raw, lose_output, lose_cache, drop_parameter]
)
def test_changes_are_those_that_dvc_sees(root: Path, change: Callable[[Path], None] | None) -> None:
    if change is not None:
        change(root)
    with Ledger(root).locked_stages() as stages:
        found = []
        for address in map(StageAddress.parse, ADDRESSES):
            stage = stages.find(address)
            for dependency in stage.deps:
                assert stages.changes_of(dependency) == flat(dependency.status())
            for output in stage.outs:
                assert stages.output_changes(output) == output.status()
            assert stages.is_changed(stage) == stage.changed()
            found.append(stages.is_changed(stage))
    assert any(found) == (change is not None)


def test_with_a_remote_missing_outputs_are_as_recorded_and_code_is_not(root: Path) -> None:
    toy_project.dvc(root, "remote", "add", "--default", "storage", str(root.parent / "storage"))
    lose_output(root)
    lose_cache(root)
    lose_raw(root)
    ledger = Ledger(root)
    stale = {address: ledger.current(StageAddress.parse(address)) is None for address in ADDRESSES}
    assert stale == dict.fromkeys(ADDRESSES, False) | {"prepare_sa1b@b": True}


def test_half_of_a_folder_is_no_input(root: Path) -> None:
    shutil.rmtree(root / "data/toy/prepare_sa1b/b")
    set_parameters(root, {"tokenizer_stage1": {"round_to": 7}})
    with pytest.raises(InputError, match=r"tokenizer_stage1 needs data/toy/prepare_sa1b/b: .* `dvc pull`"):
        other_door(root, "tokenizer_stage1")
