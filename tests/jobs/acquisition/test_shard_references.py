"""SA-1B shards that stay where they are: prepared as if they had been copied, and refused once they are others."""

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import InputError
from jobs import acquire_sa1b, prepare_sa1b
from jobs.acquisition.shard_references import References
from jobs.runner.context import StageContext
from jobs.runner.metric_log import MetricLog
from tests.jobs.acquisition.object_store import CuttingRoad, client, weed_binary

SHARDS = ("sa_000000.tar", "sa_000001.tar")
SCENE = {"min_side": 96, "max_side": 128}
needs_store = pytest.mark.skipif(weed_binary() is None, reason="SeaweedFS is not installed")


def context(folder: Path, stage: str, inputs: dict[str, Path] | None = None) -> StageContext:
    output, work = folder / "output", folder / "work"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    work.mkdir(exist_ok=True)
    return StageContext(
        stage=stage,
        partition="batch",
        partition_items=SHARDS,
        seed=1,
        inputs=inputs or {},
        output=output,
        work=work,
        metric_log=MetricLog(work / "curves.jsonl"),
    )


def acquire(place: Path, **settings: Any) -> Path:
    """Run the stage; returns the folder above the partition."""
    given = context(place, "acquire_sa1b")
    acquire_sa1b.run(
        acquire_sa1b.Config.model_validate({"scene": SCENE, "images_per_shard": 4} | settings), given
    )
    above = place / "acquired"
    shutil.rmtree(above, ignore_errors=True)
    shutil.copytree(given.output, above / "batch")
    return above


def prepare(folder: Path, acquired: Path) -> StageContext:
    given = context(folder, "prepare_sa1b", {"acquire_sa1b": acquired})
    prepare_sa1b.run(prepare_sa1b.Config(held_out_share=0.2), given)
    return given


def bytes_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def assert_equal_folders(one: Path, other: Path) -> None:
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shards."""
    return acquire(tmp_path_factory.mktemp("raw")) / "batch"


@pytest.fixture(scope="module")
def copied(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What prepare makes of copies of the shards."""
    folder = tmp_path_factory.mktemp("copied")
    return prepare(folder / "prepare", acquire(folder / "acquire", source="folder", folder=str(raw))).output


@pytest.fixture
def bucket(store: str, environment: pytest.MonkeyPatch, raw: Path, tmp_path: Path) -> Any:
    """A client of a store whose bucket holds the shards below a prefix of the test's own."""
    s3 = client(store)
    for name in SHARDS:
        s3.upload_file(str(raw / name), "shards", f"{tmp_path.name}/{name}")
    return s3


def test_shards_of_a_folder_are_read_in_place(raw: Path, copied: Path, tmp_path: Path) -> None:
    acquired = acquire(tmp_path / "acquire", source="folder", folder=str(raw), by_reference=True)
    given = prepare(tmp_path / "prepare", acquired)
    assert_equal_folders(given.output, copied)
    assert bytes_of(acquired) < 1000 < bytes_of(raw)
    assert bytes_of(given.work / "shards") == 0


def test_another_shard_of_the_same_name_is_refused(raw: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(raw, tmp_path / "raw")
    acquired = acquire(tmp_path / "acquire", source="folder", folder=str(folder), by_reference=True)
    content = bytearray((folder / SHARDS[1]).read_bytes())
    content[-1] ^= 1
    (folder / SHARDS[1]).write_bytes(content)
    with pytest.raises(
        InputError, match=r"^`sa_000001\.tar` in folder `raw` is not what acquire_sa1b recorded"
    ):
        prepare(tmp_path / "prepare", acquired)


@needs_store
def test_shards_of_a_bucket_pass_through_one_at_a_time(bucket: Any, copied: Path, tmp_path: Path) -> None:
    acquired = acquire(tmp_path / "acquire", source="s3", s3={"url": url(tmp_path)}, by_reference=True)
    given = prepare(tmp_path / "prepare", acquired)
    assert_equal_folders(given.output, copied)
    assert bytes_of(acquired) < 1000
    assert bytes_of(given.work / "shards") == 0


@needs_store
def test_shards_of_a_bucket_survive_cut_connections(
    bucket: Any, store: str, environment: pytest.MonkeyPatch, copied: Path, tmp_path: Path
) -> None:
    acquired = acquire(tmp_path / "acquire", source="s3", s3={"url": url(tmp_path)}, by_reference=True)
    road = CuttingRoad(store, [3000] * 3)  # looking two shards up meets two of them at most
    environment.setenv("AWS_ENDPOINT_URL_S3", road.address)
    try:
        given = prepare(tmp_path / "prepare", acquired)
    finally:
        road.close()
    assert road.cuts == []
    assert_equal_folders(given.output, copied)


@needs_store
def test_replaced_object_is_refused(bucket: Any, raw: Path, tmp_path: Path) -> None:
    acquired = acquire(tmp_path / "acquire", source="s3", s3={"url": url(tmp_path)}, by_reference=True)
    bucket.upload_file(str(raw / SHARDS[0]), "shards", f"{tmp_path.name}/{SHARDS[1]}")
    with pytest.raises(
        InputError, match=r"^`sa_000001\.tar` in s3://shards/.* is not what acquire_sa1b recorded"
    ):
        prepare(tmp_path / "prepare", acquired)


def url(tmp_path: Path) -> str:
    return f"s3://shards/{tmp_path.name}"


def test_damaged_references_are_one_clear_line(raw: Path, tmp_path: Path) -> None:
    acquired = acquire(tmp_path / "acquire", source="folder", folder=str(raw), by_reference=True)
    path = acquired / "batch" / "references.json"
    content = json.loads(path.read_text())
    content["source"]["shards"][0]["sha256"] = "no hash"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="missing or damaged; run acquire_sa1b again"):
        References.read(path.parent)


def test_references_need_a_place_that_keeps_the_shards() -> None:
    with pytest.raises(ValueError, match="`by_reference` needs a `folder` or `s3`, and source is sample"):
        acquire_sa1b.Config(by_reference=True)
