"""No training set contains an image of a benchmark: not by id within a numbering, and not by its bytes."""

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import prepare_benchmark, prepare_referring
from jobs.preparation.benchmark_images import read_benchmark_images
from jobs.runner.context import StageReport
from tests.jobs.raw_data import acquired, coco_annotation, context, jpeg, reference, write_coco

RULE = "not_in_benchmark"


def write_records(path: Path, split_of: dict[int, str], quality_of: dict[int, int]) -> None:
    """One record an image; images of another jpeg quality have other bytes."""
    write_coco(path, list(split_of), [coco_annotation(number, number) for number in split_of])
    for number, quality in quality_of.items():
        (path / "images" / f"{number:012d}.jpg").write_bytes(jpeg(quality=quality))
    references = [reference(number, number, number, split=split) for number, split in split_of.items()]
    (path / "refs(unc).p").write_bytes(pickle.dumps(references, protocol=2))


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared benchmark with COCO's images 1 and 2, of qualities 11 and 12."""
    folder = tmp_path_factory.mktemp("benchmarks")
    write_records(acquired(folder, "refcoco_val", "refer"), {1: "val", 2: "val"}, {1: 11, 2: 12})
    given = context(folder, "prepare_benchmark", "refcoco_val")
    prepare_benchmark.run(prepare_benchmark.Config.model_validate({"benchmarks": {"refcoco_val": {}}}), given)
    (folder / "prepared").mkdir()
    given.output.rename(folder / "prepared" / "refcoco_val")
    return folder / "prepared"


def prepare(
    folder: Path, benchmarks: Path, own_image_ids: bool = False
) -> tuple[StageReport, dict[str, str], Path]:
    """Images 1 (train, other bytes), 2 (val, same bytes), 3 (train), 4 (train, bytes of the benchmark's 2)."""
    path = acquired(folder, "set", "refer")
    splits = {1: "train", 2: "val", 3: "train", 4: "train"}
    write_records(path, splits, {1: 21, 2: 12, 3: 23, 4: 12})
    if own_image_ids:
        (path / "dataset.json").write_text(json.dumps({"format": "refer", "own_image_ids": True}))
    given = context(folder, "prepare_referring", "set")
    given = type(given)(**{**given.__dict__, "inputs": {**given.inputs, "prepare_benchmark": benchmarks}})
    parameters: dict[str, Any] = {"datasets": {"set": {}}, "contract": {"max_quarantined_share": 0.0}}
    report = prepare_referring.run(prepare_referring.Config.model_validate(parameters), given)
    rows = pq.read_table(given.output / "quarantine.parquet").to_pylist()
    assert {row["rule"] for row in rows} == {RULE}
    return report, {row["row_id"]: row["value"] for row in rows}, given.output


def test_training_rows_on_benchmark_images_are_quarantined_by_id_and_by_bytes(
    tmp_path: Path, benchmarks: Path
) -> None:
    report, found, output = prepare(tmp_path, benchmarks)
    assert found == {
        "1": "image 1 is in refcoco_val (coco id)",
        "4": "image 4 is in refcoco_val (same bytes)",
    }
    assert report.figures["rows_accepted"] == 2
    assert report.figures["quarantined_not_in_benchmark"] == 2
    shard = pq.read_table(output / "shard-00000.parquet", columns=["image_id", "image_numbering"])
    assert shard.to_pydict() == {"image_id": ["2", "3"], "image_numbering": ["coco", "coco"]}


def test_leaving_benchmark_images_out_is_no_damage(tmp_path: Path, benchmarks: Path) -> None:
    contract = prepare(tmp_path, benchmarks)[0].checks[0]
    assert contract.passed
    assert "2 of 4 rows quarantined, 0 of them damaged" in contract.reason
    assert f"{RULE} 2" in contract.reason


def test_ids_of_a_data_set_of_its_own_compare_with_no_others(tmp_path: Path, benchmarks: Path) -> None:
    assert set(prepare(tmp_path, benchmarks, own_image_ids=True)[1]) == {"4"}


def test_without_benchmarks_nothing_is_left_out(tmp_path: Path) -> None:
    assert read_benchmark_images(tmp_path).find("1", "coco", "") is None
