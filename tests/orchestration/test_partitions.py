"""New shards become a batch, once, and only under a name that is safe as a path."""

from pathlib import Path

import dagster as dg
import pytest
import yaml

from data_contracts.errors import InputError
from orchestration.automation.new_data import find_new_shards
from orchestration.automation.settings import NewData
from orchestration.partitions import add_batch, add_missing_batches, sa1b_batches
from orchestration.sensors import build_sensors

LATER, EARLIER = 4e9, 0.0  # seconds since the epoch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    partitions = {"sa1b": {"batches": ["batch_000"], "shards": {"batch_000": ["sa_000000.tar"]}}}
    (tmp_path / "partitions.yaml").write_text(yaml.safe_dump(partitions))
    parameters = {"acquire_sa1b": {"source": "folder", "folder": "shards"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(parameters))
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "sa_000000.tar").touch()
    return tmp_path


def test_only_unlisted_shards_are_new(root: Path) -> None:
    assert find_new_shards(root, LATER) == []
    (root / "shards" / "sa_000007.tar").touch()
    (root / "shards" / "notes.txt").touch()
    assert find_new_shards(root, EARLIER) == []  # it may still be being copied
    assert find_new_shards(root, LATER) == ["sa_000007.tar"]
    assert add_batch(root, ["sa_000007.tar"]) == "batch_001"
    assert find_new_shards(root, LATER) == []
    assert sa1b_batches(root) == ["batch_000", "batch_001"]


@pytest.mark.parametrize("name", ["$(touch x).tar", "../sa_1.tar", "sa 1.tar", ""])
def test_unsafe_shard_names_are_refused(root: Path, name: str) -> None:
    before = (root / "partitions.yaml").read_text()
    with pytest.raises(InputError, match="may hold only"):
        add_batch(root, [name])
    assert (root / "partitions.yaml").read_text() == before


def test_sensor_adds_a_partition_and_asks_for_one_run(root: Path) -> None:
    job = dg.define_asset_job("sa1b_data", selection="*")
    names = ("referring_data", "evaluation", "reporting")
    others = {name: dg.define_asset_job(name, selection="*") for name in names}
    settings = NewData(seconds_between_looks=60, settled_seconds=0)
    sensor = build_sensors(root, {"sa1b_data": job, **others}, settings)[0]
    with dg.DagsterInstance.ephemeral() as instance:
        add_missing_batches(root, instance)
        assert instance.get_dynamic_partitions("sa1b_batches") == ["batch_000"]
        nothing = sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(nothing, dg.SkipReason)
        (root / "shards" / "sa_000007.tar").touch()
        result = sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SensorResult)
    assert [request.partition_key for request in result.run_requests or []] == ["batch_001"]
    (request,) = result.dynamic_partitions_requests or []
    assert list(request.partition_keys) == ["batch_001"]
