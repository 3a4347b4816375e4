"""SA-1B from a bucket to prepared Parquet, to a DVC remote in a bucket, and back: by the runner, in both doors."""

import json
from pathlib import Path

import pytest
import yaml

from alto_models.data.shards import ShardRows
from data_contracts.schemas import MASKS_SCHEMA
from tests.jobs.acquisition.object_store import SECRET_KEY, client
from tests.lineage.project import copy_repository, repro, run
from tests.lineage.remotes import add_remote, files_below, files_with, fresh_clone

pytestmark = [pytest.mark.slow, pytest.mark.lineage]
MARKER = "planted-secret-of-another-service"
PREPARED = Path("data/smoke/prepare_sa1b/batch_000")


def upload_folder(address: str, folder: Path, bucket: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            client(address).upload_file(str(path), bucket, path.relative_to(folder).as_posix())


@pytest.fixture
def project(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards in the bucket `raw`; the project reads them there."""
    for name in ("HF_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, MARKER)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket)
    root = copy_repository(tmp_path / "project")
    repro(root, "acquire_sa1b")
    client(bucket).create_bucket(Bucket="raw")
    for shard in (root / "data/smoke/acquire_sa1b").rglob("*.tar"):
        client(bucket).upload_file(str(shard), "raw", f"sa1b/{shard.name}")
    parameters = yaml.safe_load((root / "params.yaml").read_text())
    parameters["acquire_sa1b"] |= {"source": "s3", "s3": {"url": "s3://raw/sa1b"}, "by_reference": True}
    (root / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))
    return root


def test_from_a_bucket_to_a_bucket(project: Path, bucket: str, tmp_path: Path) -> None:
    batches = ("batch_000", "batch_001")
    ran = repro(project, "prepare_sa1b")
    assert sorted(ran) == sorted(
        f"{stage}@{batch}" for stage in ("acquire_sa1b", "prepare_sa1b") for batch in batches
    )
    assert not list((project / "data/smoke/acquire_sa1b").rglob("*.tar"))
    report = json.loads((project / PREPARED / "report.json").read_text())
    assert all(check["passed"] for check in report["checks"])
    assert report["figures"]["rows_read"] == report["figures"]["rows_accepted"] > 0
    before = (project / "dvc.lock").read_bytes()
    run(project, "-m", "tests.lineage.materialize", *ran)
    assert (project / "dvc.lock").read_bytes() == before

    add_remote(project, "s3://storage/dvc", bucket)
    run(project, "-m", "dvc", "push", "-v")
    clone = fresh_clone(project, tmp_path / "clone")
    assert repro(clone, "--allow-missing", "prepare_sa1b") == []
    run(clone, "-m", "dvc", "pull", str(PREPARED))
    assert files_below(clone / PREPARED) == files_below(project / PREPARED)

    client(bucket).create_bucket(Bucket="prepared")
    upload_folder(bucket, project / PREPARED, "prepared")
    here, there = (ShardRows(where, MASKS_SCHEMA, None) for where in (project / PREPARED, "s3://prepared"))
    assert [there.row(i) for i in range(len(there))] == [here.row(i) for i in range(len(here))]

    assert files_with(project, MARKER, SECRET_KEY) == files_with(clone, MARKER, SECRET_KEY) == []
