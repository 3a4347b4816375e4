"""The place through which orders, logs and checkpoints of jobs pass: a folder and a real bucket behave alike."""

import itertools
import threading
from pathlib import Path

import pytest

from data_contracts.errors import InputError
from jobs.runner.exchange import BucketExchange, Exchange, Unreachable, open_exchange, until_reachable
from jobs.runner.work_mirror import CURVES, LOG, MESSAGES, Inbox, Outbox, StateKeeper
from tests.jobs.acquisition.object_store import SECRET_KEY

pytestmark = pytest.mark.slow


@pytest.fixture(params=["folder", "bucket"])
def exchange(request: pytest.FixtureRequest, tmp_path: Path) -> Exchange:
    if request.param == "folder":
        return open_exchange(str(tmp_path / "exchange"))
    request.getfixturevalue("store")
    return open_exchange(f"s3://storage/{tmp_path.name}")


def test_objects_by_name(exchange: Exchange, tmp_path: Path) -> None:
    assert exchange.names() == []
    assert exchange.read("a/none") is None
    with pytest.raises(InputError, match="missing"):
        exchange.download("a/none", tmp_path / "none")
    below = exchange.below("jobs/one")
    below.write("a/1", b"first")
    below.write("a/2", b"second")
    (tmp_path / "file").write_bytes(b"third")
    below.upload(tmp_path / "file", "b")
    assert exchange.names() == ["jobs/one/a/1", "jobs/one/a/2", "jobs/one/b"]
    assert below.names("a") == ["a/1", "a/2"]
    assert below.names("a", after="a/1") == ["a/2"]
    below.write("a/1", b"anew")
    assert below.read("a/1") == b"anew"
    below.download("b", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"third"
    exchange.delete(exchange.names())
    assert exchange.names() == []


def test_growing_files_arrive_whole_over_two_attempts_and_for_a_late_reader(
    exchange: Exchange, tmp_path: Path
) -> None:
    first, second, here = tmp_path / "first", tmp_path / "second", tmp_path / "here"
    files = {name: here / name for name in (LOG, MESSAGES, CURVES)}
    inbox = Inbox(exchange, files)
    (first / "state").mkdir(parents=True)
    outbox = Outbox(exchange, first)
    (first / LOG).write_bytes(b"line\rhalf a li")
    (first / MESSAGES).write_bytes(b'{"a": 1}\n{"b')
    outbox.send_growth()
    inbox.receive_growth()
    assert files[LOG].read_bytes() == b"line\rhalf a li"
    assert files[MESSAGES].read_bytes() == b'{"a": 1}\n'  # never half a message
    with (first / MESSAGES).open("ab") as file:
        file.write(b'": 2}\n')
    (first / CURVES).write_bytes(b'{"step": 1}\n')
    outbox.send_growth()

    (second / "state").mkdir(parents=True)
    (second / CURVES).write_bytes(b'{"step": 1}\n')  # restored from the checkpoint
    requeued = Outbox(exchange, second)
    with (second / CURVES).open("ab") as file:
        file.write(b'{"step": 2}\n')
    (second / LOG).write_bytes(b"again\n")
    requeued.send_growth()
    inbox.receive_growth()
    expected = {
        LOG: b"line\rhalf a liagain\n",
        MESSAGES: b'{"a": 1}\n{"b": 2}\n',
        CURVES: b'{"step": 1}\n{"step": 2}\n',
    }
    assert {name: path.read_bytes() for name, path in files.items()} == expected
    late = Inbox(exchange, files)
    late.receive_growth()
    assert {name: path.read_bytes() for name, path in files.items()} == expected


def test_a_checkpoint_of_several_files_is_restored_as_of_one_moment(
    exchange: Exchange, tmp_path: Path
) -> None:
    """While a job replaces `step_N/*` and then `latest`, as ZeRO's checkpoints are, states are kept all the time."""
    state = tmp_path / "job" / "state"
    state.mkdir(parents=True)
    finished = threading.Event()

    def save_all() -> None:
        for step in range(150):
            folder = state / f"step_{step}"
            folder.mkdir()
            for rank in range(3):
                (folder / f"rank_{rank}").write_text(str(step))
            (state / ".latest").write_text(str(step))
            (state / ".latest").replace(state / "latest")
            for old in state.glob("step_*"):
                if old != folder:
                    for file in old.iterdir():
                        file.unlink()
                    old.rmdir()
        finished.set()

    keeper = StateKeeper(exchange, state)
    saving = threading.Thread(target=save_all)
    saving.start()
    restored = []
    for look in itertools.count():
        last = finished.is_set()
        keeper.keep()
        target = tmp_path / f"again_{look}" / "state"
        target.mkdir(parents=True)
        if StateKeeper(exchange, target).restore() and (target / "latest").exists():
            step = (target / "latest").read_text()
            assert [(target / f"step_{step}" / f"rank_{rank}").read_text() for rank in range(3)] == [step] * 3
            restored.append(step)
        if last:
            break
    saving.join()
    assert restored[-1] == "149"
    assert len(exchange.names("state")) == 5  # four files and the index: older ones are gone


def test_what_is_downloaded_again_and_unfinished_files_are_not_kept(
    exchange: Exchange, tmp_path: Path
) -> None:
    state = tmp_path / "job" / "state"
    for name in ("downloads/shard.tar", ".checkpoint.partial", "checkpoint", "parts/0/.rows", "parts/0/rows"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text(name)
    StateKeeper(exchange, state).keep()
    again = tmp_path / "again" / "state"
    again.mkdir(parents=True)
    assert StateKeeper(exchange, again).restore() == 2
    assert sorted(path.name for path in again.rglob("*") if path.is_file()) == ["checkpoint", "rows"]


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "does not know the access key"),
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret", "does not accept the secret key"),
    ],
)
def test_wrong_credentials_are_one_line_without_the_secret(
    store: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError) as refused:
        open_exchange("s3://storage/x").write("a", b"")
    message = str(refused.value)
    assert message.startswith("exchange s3://storage/x: it ")
    assert reason in message
    assert "\n" not in message
    assert SECRET_KEY not in message
    assert "wrong-secret" not in message


def test_no_credentials_no_bucket_no_place(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such bucket"):
        open_exchange("s3://nowhere/x").names()
    for url in ("relative/folder", "s3://", "ftp://host/x"):
        with pytest.raises(InputError, match="is no exchange"):
            open_exchange(url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InputError, match=r"[Uu]nable to locate credentials; set credentials"):
        BucketExchange("storage", "x").write("a", b"")


def test_a_store_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Unreachable("away"), Unreachable("away"), None]

    def ask() -> str:
        if (answer := answers.pop(0)) is not None:
            raise answer
        return "here"

    assert until_reachable(30.0, ask) == "here"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(Unreachable):
        until_reachable(0.0, lambda: open_exchange("s3://storage/x").read("a"))
