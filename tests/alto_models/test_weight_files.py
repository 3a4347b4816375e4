"""Which files are a checkpoint's weights, and a checksum that a shell can make, too."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from alto_models.weight_files import INDEX_FILE, TENSORS_FILE, weight_files, weights_sha256
from data_contracts.errors import InputError

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for name in SHARDS:
        (tmp_path / name).write_bytes(name.encode())
    weight_map = {"a": SHARDS[1], "b": SHARDS[0], "c": SHARDS[1]}
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


def test_one_file_has_its_own_checksum(tmp_path: Path) -> None:
    (tmp_path / TENSORS_FILE).write_bytes(b"weights")
    assert weight_files(tmp_path) == [tmp_path / TENSORS_FILE]
    assert weights_sha256(tmp_path) == hashlib.sha256(b"weights").hexdigest()


def test_shards_have_the_checksum_of_the_list_of_theirs(sharded: Path) -> None:
    assert [path.name for path in weight_files(sharded)] == SHARDS
    listed = subprocess.run(["sha256sum", *SHARDS], cwd=sharded, check=True, capture_output=True).stdout
    assert weights_sha256(sharded) == hashlib.sha256(listed).hexdigest()


@pytest.mark.parametrize("name", SHARDS)
def test_another_byte_in_any_shard_is_another_checksum(sharded: Path, name: str) -> None:
    before = weights_sha256(sharded)
    (sharded / name).write_bytes(b"other")
    assert weights_sha256(sharded) != before


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / SHARDS[1]).unlink()
    with pytest.raises(InputError, match=SHARDS[1]):
        weight_files(sharded)


def test_weights_of_both_kinds_are_refused(sharded: Path) -> None:
    (sharded / TENSORS_FILE).write_bytes(b"weights")
    with pytest.raises(InputError, match="remove the one"):
        weight_files(sharded)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights here"):
        weight_files(tmp_path)


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(InputError, match=r"\.\./other"):
        weight_files(tmp_path)
