"""Damaged shards: bad rows are quarantined and the run goes on; too many stop what follows, in both doors."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.lineage.project import copy_repository, run

pytestmark = pytest.mark.lineage

SHARDS = ("sa_000000.tar", "sa_000001.tar")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose SA-1B shards come from a folder: drawn, and every mask of one image damaged."""
    root = copy_repository(tmp_path / "project")
    run(root, "-m", "jobs.acquire_sa1b", "--partition", "batch_000")
    drawn = root / "data/smoke/acquire_sa1b/batch_000"
    folder = root / "shards"
    folder.mkdir()
    for shard in SHARDS:
        damage_first_image(drawn / SHARDS[0], folder / shard)
    parameters = yaml.safe_load((root / "params.yaml").read_text())
    parameters["acquire_sa1b"] |= {"source": "folder", "folder": "shards"}
    (root / "params.yaml").write_text(yaml.safe_dump(parameters))
    return root


def damage_first_image(source: Path, target: Path) -> None:
    """Copy a shard, with the runs of its first image's masks cut short."""
    damaged = False
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            content = old.extractfile(member).read()  # type: ignore[union-attr]
            if member.name.endswith(".json") and not damaged:
                record = json.loads(content)
                for annotation in record["annotations"]:
                    annotation["segmentation"]["counts"] = annotation["segmentation"]["counts"][:-2]
                content, damaged = json.dumps(record).encode(), True
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))


def set_limit(root: Path, share: float) -> None:
    parameters = yaml.safe_load((root / "params.yaml").read_text())
    parameters["prepare_sa1b"]["contract"]["max_quarantined_share"] = share
    (root / "params.yaml").write_text(yaml.safe_dump(parameters))


def test_too_large_a_share_stops_what_follows_in_both_doors(root: Path) -> None:
    by_dvc = run(root, "-m", "dvc", "repro", "tokenizer_stage1", check=False)
    assert by_dvc.returncode != 0
    assert "blocking check failed" in by_dvc.stderr
    assert "contract" in by_dvc.stderr
    assert "Traceback" not in by_dvc.stderr
    assert not (root / "models/smoke/tokenizer_stage1").exists()
    assert not (root / "data/smoke/prepare_sa1b/batch_000").exists()

    # DVC stopped at whichever batch it took first: the other one's shards may still be the drawn ones.
    addresses = ("acquire_sa1b@batch_000", "prepare_sa1b@batch_000")
    by_dagster = run(root, "-m", "tests.lineage.materialize", *addresses, check=False)
    assert by_dagster.returncode != 0
    assert "blocking check failed" in by_dagster.stderr
    assert "prepare_sa1b@batch_000" not in yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    checks = run(root, "-m", "tests.lineage.check_state", "prepare_sa1b").stdout.splitlines()[-1]
    assert json.loads(checks)["contract"] is False


def test_a_tolerated_share_is_quarantined_with_reasons_and_the_run_goes_on(root: Path) -> None:
    set_limit(root, 0.5)
    run(root, "-m", "dvc", "repro", "prepare_sa1b@batch_000")
    output = root / "data/smoke/prepare_sa1b/batch_000"
    figures = json.loads((output / "report.json").read_text())["figures"]
    assert figures["rows_quarantined"] > 0
    assert figures["rows_accepted"] + figures["rows_quarantined"] == figures["rows_read"]

    import pyarrow.parquet as pq

    quarantine = pq.read_table(output / "quarantine.parquet").to_pylist()
    assert sum(row["rows"] for row in quarantine) == figures["rows_quarantined"]
    assert all(row["rule"] and row["reason"] and row["source_file"] for row in quarantine)
