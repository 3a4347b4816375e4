"""`acquire_sa1b` with `source: links`, against a server that fails."""

import json
import logging
import multiprocessing
import random
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import InputError
from jobs import acquire_sa1b
from jobs.runner.context import StageContext, StageReport
from jobs.runner.worker import parse_config
from tests.jobs.acquisition.conftest import ContextOf
from tests.jobs.acquisition.shard_server import Answer, Shard, ShardServer, shard_server

SECRET = "planted-signature"
NAMES = tuple(f"sa_{number:06}.tar" for number in range(6))


@pytest.fixture
def server() -> Iterator[ShardServer]:
    with shard_server() as server:
        server.shards = {name: Shard(random.Random(name).randbytes(20_000)) for name in NAMES}
        yield server


def write_list(path: Path, server: ShardServer, names: tuple[str, ...] = NAMES) -> Path:
    rows = [f"{name}\t{server.link(name, SECRET)}" for name in reversed(names)]
    path.write_text("\n".join(["file_name\tcdn_link", f"sa_co_gold.tar\t{SECRET}", *rows]) + "\n")
    return path


def run(context: StageContext, links: Path, **settings: Any) -> StageReport:
    section = {"file": str(links), "first_wait_seconds": 0, "attempts": 3, "timeout_seconds": 2} | settings
    config = parse_config(acquire_sa1b.Config, "acquire_sa1b", {"source": "links", "links": section})
    assert isinstance(config, acquire_sa1b.Config)
    return acquire_sa1b.run(config, context)


def test_shards_of_the_partition_are_downloaded(
    server: ShardServer, tmp_path: Path, context_of: ContextOf
) -> None:
    context = context_of(*NAMES[1:4], NAMES[1])
    server.answers.extend([Answer(cut_after=7), Answer(status=503), Answer()])
    report = run(context, write_list(tmp_path / "links.tsv", server))
    assert {path.name for path in context.output.iterdir()} == {"dataset.json", *NAMES[1:4]}
    for name in NAMES[1:4]:
        assert (context.output / name).read_bytes() == server.shards[name].content
    assert report.figures == {"shards": 3, "bytes": 60_000}
    assert json.loads((context.output / "dataset.json").read_text())["source"] == "links"
    assert not list((context.work / "downloads").iterdir())


@pytest.mark.parametrize("parallel", [1, 2])
def test_no_more_connections_than_asked_for(
    server: ShardServer, tmp_path: Path, context_of: ContextOf, parallel: int
) -> None:
    run(context_of(*NAMES), write_list(tmp_path / "links.tsv", server), parallel=parallel)
    assert server.most_at_once <= parallel
    assert len(server.asked) == len(NAMES)


def test_expired_links_are_named_together_and_a_fresh_list_continues(
    server: ShardServer, tmp_path: Path, context_of: ContextOf
) -> None:
    links = write_list(tmp_path / "links.tsv", server)
    server.answers.extend([Answer(), Answer(cut_after=5000), Answer(status=403), Answer(status=403)])
    with pytest.raises(InputError) as caught:
        run(context_of(*NAMES[:3]), links, parallel=1)
    message = str(caught.value)
    assert message.startswith(f"links of `{NAMES[1]}`, `{NAMES[2]}` have expired: ")
    assert "fetch a fresh list" in message
    assert "\n" not in message
    server.asked.clear()
    context = context_of(*NAMES[:3])
    run(context, links, parallel=1)
    assert [(name, headers.get("Range")) for name, headers in server.asked] == [
        (NAMES[1], "bytes=5000-"),
        (NAMES[2], None),
    ]
    assert all((context.output / name).read_bytes() == server.shards[name].content for name in NAMES[:3])


def test_one_failing_shard_does_not_keep_the_others_back(
    server: ShardServer, tmp_path: Path, context_of: ContextOf
) -> None:
    del server.shards[NAMES[0]]
    context = context_of(*NAMES)
    with pytest.raises(InputError, match=rf"^{NAMES[0]}: the server answered HTTP 404; .*$"):
        run(context, write_list(tmp_path / "links.tsv", server))
    assert {path.name for path in (context.work / "downloads").iterdir()} == set(NAMES[1:])
    assert not list(context.output.glob("*.tar*"))


def test_shards_that_the_list_lacks_are_named_before_anything_is_downloaded(
    server: ShardServer, tmp_path: Path, context_of: ContextOf
) -> None:
    links = write_list(tmp_path / "links.tsv", server, NAMES[:2])
    with pytest.raises(InputError, match=rf"no link for `{NAMES[4]}`, `{NAMES[5]}`"):
        run(context_of(*NAMES[1:2], *NAMES[4:]), links)
    assert server.asked == []


def test_killed_run_is_continued(server: ShardServer, tmp_path: Path, context_of: ContextOf) -> None:
    links = write_list(tmp_path / "links.tsv", server)
    context = context_of(*NAMES[:2])
    server.answers.extend([Answer(), Answer(cut_after=12_345, stalls=True)])
    part = context.work / "downloads" / f"{NAMES[1]}.part"
    process = multiprocessing.get_context("spawn").Process(
        target=run, args=(context, links), kwargs={"parallel": 1, "timeout_seconds": 60}
    )
    process.start()
    end = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size == 12_345) and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not list(context.output.glob("*.tar*"))
    server.asked.clear()
    context = context_of(*NAMES[:2])
    run(context, links)
    assert [(name, headers.get("Range")) for name, headers in server.asked] == [(NAMES[1], "bytes=12345-")]
    assert all((context.output / name).read_bytes() == server.shards[name].content for name in NAMES[:2])


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=403),
        Answer(status=404),
        Answer(status=503),
        Answer(cut_after=3),
        Answer(stalls=True),
        Answer(headers={"Content-Type": "text/html"}),
        Answer(status=302, headers={"Location": f"http://127.0.0.1:1/{SECRET}"}),
        Answer(status=302, headers={"Location": f"http://[{SECRET}"}),
        Answer(headers={"ETag": f"{SECRET}: x"}),
    ],
)
def test_signatures_of_links_appear_nowhere(
    server: ShardServer,
    tmp_path: Path,
    context_of: ContextOf,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    answer: Answer,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answers.extend([answer] * 2)
    context = context_of(*NAMES[:2])
    shown = ""
    try:
        run(context, write_list(tmp_path / "links.tsv", server), attempts=1, parallel=1, timeout_seconds=0.2)
    except InputError as error:
        shown = "".join(traceback.format_exception(error))
    captured = capfd.readouterr()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    written = b"".join(path.name.encode() + path.read_bytes() for path in files)
    assert SECRET not in shown + caplog.text + captured.out + captured.err
    assert SECRET.encode() not in written


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"source": "links"}, "`links` must be given with `source: links`, and"),
        ({"source": "folder", "links": {"file": "x"}}, "must be given with"),
        ({"source": "links", "links": {"file": "x", "paralel": 2}}, r"acquire_sa1b\.links\.paralel: unknown"),
        ({"source": "links", "links": {"file": "x", "parallel": 0}}, r"acquire_sa1b\.links\.parallel"),
        ({"source": "s3", "s3": {"url": "https://bucket"}}, r"acquire_sa1b\.s3\.url"),
        ({"source": "sample", "s3": {"url": "s3://bucket/x"}}, "`s3` must be given with `source: s3`, and"),
    ],
)
def test_settings_that_do_not_fit_the_source_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config(acquire_sa1b.Config, "acquire_sa1b", parameters)
