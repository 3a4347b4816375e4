"""Stage contexts and an object store for the tests of acquiring."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.runner.context import StageContext
from jobs.runner.metric_log import MetricLog
from tests.jobs.acquisition.object_store import ACCESS_KEY, SECRET_KEY, client, object_store

ContextOf = Callable[..., StageContext]


@pytest.fixture
def context_of(tmp_path: Path) -> ContextOf:
    """A context of `acquire_sa1b` for these shards, as a first run and each run after a kill gets it."""

    def make(*shards: str) -> StageContext:
        output, work = tmp_path / "run" / "output", tmp_path / "run" / "state"
        if output.exists():
            for path in output.iterdir():
                path.unlink()
        output.mkdir(parents=True, exist_ok=True)
        work.mkdir(exist_ok=True)
        return StageContext(
            stage="acquire_sa1b",
            partition="batch_000",
            partition_items=shards,
            seed=1,
            inputs={},
            output=output,
            work=work,
            metric_log=MetricLog(work / "curves.jsonl"),
        )

    return make


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_store(tmp_path_factory.mktemp("store")) as address:
        client(address).create_bucket(Bucket="shards")
        yield address


@pytest.fixture
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
