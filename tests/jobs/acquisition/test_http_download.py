"""A download ends with exactly the server's bytes under the final name, or without that name."""

import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from tqdm import tqdm

from data_contracts.errors import InputError
from jobs.acquisition import http_download
from jobs.acquisition.byte_progress import ByteProgress
from jobs.acquisition.http_download import HttpDownloader, LinkExpired, Stopped
from jobs.acquisition.link_list import Link
from jobs.acquisition.part_file import Origin, PartFile
from jobs.acquisition.transfer_settings import LinksConfig
from tests.jobs.acquisition.shard_server import Answer, Shard, ShardServer, shard_server

NAME = "sa_000003.tar"
CONTENT = random.Random(0).randbytes(5000)
OTHER = random.Random(1).randbytes(5000)
DATE = "Wed, 05 Apr 2023 10:00:00 GMT"


@pytest.fixture(scope="module")
def running() -> Iterator[ShardServer]:
    with shard_server() as server:
        yield server


@pytest.fixture
def server(running: ShardServer) -> ShardServer:
    return reset(running)


def reset(server: ShardServer) -> ShardServer:
    server.shards = {NAME: Shard(CONTENT)}
    server.answers.clear()
    server.asked.clear()
    return server


def download(
    server: ShardServer,
    target: Path,
    attempts: int = 4,
    size: int | None = None,
    md5: str | None = None,
    stop: Event | None = None,
) -> tqdm:
    config = LinksConfig(attempts=attempts, first_wait_seconds=0, timeout_seconds=0.3)
    link = Link(name=NAME, url=SecretStr(server.link(NAME, "planted")), size=size, md5=md5)
    with tqdm(total=0, file=io.StringIO()) as bar:
        HttpDownloader(config, stop or Event()).download(link, target, ByteProgress(bar).file())
    return bar


def plant(target: Path, content: bytes, origin: Origin | None) -> PartFile:
    part = PartFile(target)
    if origin is not None:
        part.begin(origin)
    part.path.write_bytes(content)
    return part


def nothing_but(target: Path) -> bool:
    return sorted(path.name for path in target.parent.iterdir()) == [target.name]


def test_whole_file_and_nothing_else(server: ShardServer, tmp_path: Path) -> None:
    bar = download(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert nothing_but(tmp_path / NAME)
    assert server.ranges_asked == [None]
    assert (bar.n, bar.total) == (len(CONTENT), len(CONTENT))


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, len(CONTENT) - 1), max_size=3), dated=st.booleans())
def test_cut_connections_continue_where_they_were_cut(
    running: ShardServer, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], dated: bool
) -> None:
    server = reset(running)
    server.shards[NAME] = Shard(CONTENT, etag='W/"1"' if dated else '"1"', modified=DATE)
    server.answers.extend(Answer(cut_after=cut) for cut in cuts)
    target = tmp_path_factory.mktemp("cut") / NAME
    bar = download(server, target)
    assert target.read_bytes() == CONTENT
    assert (bar.n, bar.total) == (len(CONTENT), len(CONTENT))
    received = 0
    for asked, cut in zip(server.ranges_asked, [*cuts, len(CONTENT)], strict=False):
        assert asked == (f"bytes={received}-" if received else None)
        received += min(cut, len(CONTENT) - received)


@pytest.mark.slow
def test_a_large_file_survives_cut_connections(server: ShardServer, tmp_path: Path) -> None:
    content = random.Random(2).randbytes(200 << 20)
    server.shards[NAME] = Shard(content)
    server.answers.extend(Answer(cut_after=cut << 20) for cut in (90, 0, 60, 1))
    bar = download(server, tmp_path / NAME, md5=hashlib.md5(content).hexdigest())
    assert hashlib.sha256((tmp_path / NAME).read_bytes()).digest() == hashlib.sha256(content).digest()
    assert server.ranges_asked[1:] == [f"bytes={at << 20}-" for at in (90, 90, 150, 151)]
    assert bar.n == len(content)


@settings(max_examples=25, deadline=None)
@given(offset=st.integers(0, len(CONTENT)))
def test_part_of_a_killed_run_is_continued(
    running: ShardServer, tmp_path_factory: pytest.TempPathFactory, offset: int
) -> None:
    server = reset(running)
    target = tmp_path_factory.mktemp("kill") / NAME
    plant(target, CONTENT[:offset], Origin(size=len(CONTENT), validator='"1"'))
    bar = download(server, target)
    assert target.read_bytes() == CONTENT
    whole = offset == len(CONTENT)
    assert server.ranges_asked == ([] if whole else [f"bytes={offset}-" if offset else None])
    assert (bar.n, bar.total, bar.initial) == (len(CONTENT), len(CONTENT), offset)


@pytest.mark.parametrize(
    "origin",
    [
        None,
        Origin(size=5000, validator=None),
        Origin(size=5000, validator='"of another version"'),
        Origin(size=900, validator='"1"'),
    ],
    ids=["of nothing known", "without validator", "of another version", "longer than the file"],
)
def test_part_that_may_be_of_something_else_is_not_continued(
    server: ShardServer, tmp_path: Path, origin: Origin | None
) -> None:
    plant(tmp_path / NAME, OTHER[:1000], origin)
    bar = download(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert nothing_but(tmp_path / NAME)
    assert (bar.n, bar.total) == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("content", [b"", b"{", b'{"size": "5", "validator": null}', b"\xff"])
def test_damaged_note_of_a_part_starts_over(server: ShardServer, tmp_path: Path, content: bytes) -> None:
    plant(tmp_path / NAME, OTHER[:1000], None)
    (tmp_path / f"{NAME}.part.json").write_bytes(content)
    download(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_file_that_changes_between_attempts_is_not_mixed(server: ShardServer, tmp_path: Path) -> None:
    server.answers.append(Answer(cut_after=2000))
    stop = ChangesAfterFirstCut(server)
    bar = download(server, tmp_path / NAME, stop=stop)
    assert (tmp_path / NAME).read_bytes() == OTHER + b"longer"
    assert server.ranges_asked == [None, "bytes=2000-"]
    assert (bar.n, bar.total) == (5006, 5006)


class ChangesAfterFirstCut(Event):
    """Replaces the file while the downloader waits for its next attempt."""

    def __init__(self, server: ShardServer) -> None:
        super().__init__()
        self._server = server

    def wait(self, timeout: float | None = None) -> bool:
        self._server.shards[NAME] = Shard(OTHER + b"longer", etag='"2"')
        return super().wait(timeout)


def test_server_that_ignores_if_range_is_not_trusted(server: ShardServer, tmp_path: Path) -> None:
    plant(tmp_path / NAME, OTHER[:1000], Origin(size=5000, validator='"1"'))
    server.answers.append(Answer(headers={"ETag": '"2"'}))
    download(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.ranges_asked == ["bytes=1000-", None]


def test_server_without_ranges_sends_the_file_again(server: ShardServer, tmp_path: Path) -> None:
    server.answers.extend([Answer(cut_after=3000, ranges=False), Answer(ranges=False)])
    bar = download(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=3000-"]
    assert (bar.n, bar.total) == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize(
    "answer", [Answer(shift=7), Answer(status=416), Answer(headers={"Content-Range": "x"})]
)
def test_range_that_was_not_asked_for_starts_over(
    server: ShardServer, tmp_path: Path, answer: Answer
) -> None:
    server.answers.extend([Answer(cut_after=1234), answer])
    download(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=1234-", None]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_answers_that_pass_are_tried_again(server: ShardServer, tmp_path: Path, status: int) -> None:
    server.answers.extend([Answer(status=status), Answer(status=status, headers={"Retry-After": "nonsense"})])
    download(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_silent_server_is_tried_again(server: ShardServer, tmp_path: Path) -> None:
    server.answers.extend([Answer(stalls=True), Answer(stalls=True, cut_after=321)])
    download(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.ranges_asked == [None, None, "bytes=321-"]


def test_gives_up_after_the_attempts_and_keeps_the_part(server: ShardServer, tmp_path: Path) -> None:
    server.answers.extend([Answer(status=503), Answer(cut_after=1000), Answer(status=503)])
    with pytest.raises(
        InputError, match=rf"{NAME}: the server answered HTTP 503, 3 times; .* 1000 bytes are kept"
    ):
        download(server, tmp_path / NAME, attempts=3)
    assert not (tmp_path / NAME).exists()
    download(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.ranges_asked == [None, None, "bytes=1000-", "bytes=1000-"]


def test_attempts_that_bring_the_file_forward_do_not_count(
    server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_download, "PROGRESS_BYTES", 100)
    server.answers.extend([Answer(cut_after=100)] * 20)
    download(server, tmp_path / NAME, attempts=2)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert len(server.asked) == 21


def test_waits_double_with_jitter_and_follow_the_server(server: ShardServer, tmp_path: Path) -> None:
    waits: list[float] = []

    class Recorded(Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            return False

    server.answers.extend([Answer(status=503)] * 4 + [Answer(status=429, headers={"Retry-After": "77"})])
    config = LinksConfig(attempts=6, first_wait_seconds=2)
    link = Link(name=NAME, url=SecretStr(server.link(NAME)))
    with tqdm(disable=True) as bar:
        HttpDownloader(config, Recorded()).download(link, tmp_path / NAME, ByteProgress(bar).file())
    assert waits[0] == 0
    for wait, least in zip(waits[1:4], (2, 4, 8), strict=True):
        assert least < wait <= least + 2
    assert waits[4:] == [77]


@pytest.mark.parametrize("status", [401, 403, 410])
def test_expired_link_is_not_tried_again(server: ShardServer, tmp_path: Path, status: int) -> None:
    server.answers.extend([Answer(cut_after=1000), Answer(status=status)])
    with pytest.raises(LinkExpired, match=NAME):
        download(server, tmp_path / NAME)
    assert len(server.asked) == 2
    assert PartFile(tmp_path / NAME).size == 1000


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(status=404), "HTTP 404"),
        (Answer(headers={"Content-Type": "text/html; charset=utf-8"}), "web page"),
        (Answer(headers={"Content-Encoding": "gzip"}), "web page"),
        (Answer(claimed=""), "does not say its size"),
        (Answer(status=302, headers={"Location": "ftp://elsewhere/x?sig=planted"}), "cannot be used"),
    ],
)
def test_what_another_attempt_cannot_help_is_said_at_once(
    server: ShardServer, tmp_path: Path, answer: Answer, message: str
) -> None:
    server.answers.append(answer)
    with pytest.raises(InputError, match=message):
        download(server, tmp_path / NAME)
    assert len(server.asked) == 1
    assert not (tmp_path / NAME).exists()


def test_server_that_sends_less_than_it_claims_is_not_believed(server: ShardServer, tmp_path: Path) -> None:
    server.answers.extend([Answer(claimed="6000", ranges=False)] * 3)
    with pytest.raises(InputError, match="the connection was cut, 3 times"):
        download(server, tmp_path / NAME, attempts=3)
    assert not (tmp_path / NAME).exists()


def test_published_size_and_checksum_hold(server: ShardServer, tmp_path: Path) -> None:
    right = hashlib.md5(CONTENT).hexdigest()
    with pytest.raises(InputError, match="server has 5000 bytes, the link list says 4999"):
        download(server, tmp_path / NAME, size=4999)
    with pytest.raises(InputError, match=f"md5 {right}, the link list says {'0' * 32}"):
        download(server, tmp_path / NAME, md5="0" * 32)
    assert not list(tmp_path.iterdir())
    download(server, tmp_path / NAME, size=5000, md5=right)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_part_of_an_earlier_list_is_held_to_the_fresh_one(server: ShardServer, tmp_path: Path) -> None:
    plant(tmp_path / NAME, CONTENT[:4000], Origin(size=4000, validator='"0"'))
    with pytest.raises(InputError, match="received 4000 bytes, the link list says 5000"):
        download(server, tmp_path / NAME, size=5000)
    download(server, tmp_path / NAME, size=5000)
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("known", [{"size": 5000}, {"md5": hashlib.md5(CONTENT).hexdigest()}])
def test_server_that_does_not_say_the_size_is_held_to_the_list(
    server: ShardServer, tmp_path: Path, known: dict
) -> None:
    server.answers.append(Answer(claimed=""))
    download(server, tmp_path / NAME, **known)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_unlabelled_cut_is_noticed_by_the_published_size(server: ShardServer, tmp_path: Path) -> None:
    server.answers.append(Answer(claimed="", cut_after=1500))
    download(server, tmp_path / NAME, size=5000)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=1500-"]


def test_unreachable_server_is_named_after_the_attempts(tmp_path: Path) -> None:
    with shard_server() as gone:
        pass
    with pytest.raises(InputError, match="could not be reached, 2 times"):
        download(gone, tmp_path / NAME, attempts=2)


def test_stopped_run_leaves_a_part_only(server: ShardServer, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        download(server, tmp_path / NAME, stop=stop)
    assert not (tmp_path / NAME).exists()
