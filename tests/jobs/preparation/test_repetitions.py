"""What comes twice: pictures across splits are quarantined, other repetitions are named and stay."""

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import prepare_benchmark
from jobs.formats.sa1b import open_sa1b
from jobs.preparation.contract_frame import Judge
from jobs.preparation.measuring import measure_image
from jobs.preparation.prepare import prepare
from jobs.preparation.rows import split_by_hash
from jobs.preparation.sa1b import SA1B
from jobs.preparation.seen import Seen
from jobs.preparation.settings import ContractConfig
from jobs.runner.context import Check, StageReport
from tests.jobs.raw_data import (
    acquired,
    annotation,
    box_mask,
    coco_annotation,
    context,
    jpeg,
    reference,
    rle,
    sa1b_json,
    sentence,
    write_coco,
)

RULE = "splits_share_no_image"
HELD_OUT = 0.5


def prepared(
    path: Path, folder: Path, references: list[dict[str, Any]], name: str
) -> tuple[StageReport, dict[str, str]]:
    (path / name).write_bytes(
        json.dumps(references).encode() if name.endswith("json") else pickle.dumps(references, protocol=2)
    )
    given = context(folder, "prepare_benchmark", "set")
    parameters = {"benchmarks": {"set": {}}, "contract": {"max_quarantined_share": 1.0}}
    report = prepare_benchmark.run(prepare_benchmark.Config.model_validate(parameters), given)
    rows = pq.read_table(given.output / "quarantine.parquet").to_pylist()
    assert {row["rule"] for row in rows} <= {RULE}
    assert int(report.figures["rows_accepted"]) + len(rows) == len(references)
    return report, {row["row_id"]: row["value"] for row in rows}


def warnings_of(report: StageReport) -> dict[str, dict[str, Any]]:
    check = named(report, "warnings")
    return {row["rule"]: row for row in check.details["rules"]}


def named(report: StageReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("refs(unc).p", {"3": "image 1 is in split train, too", "4": "image 1 of split train has the same bytes"}),
        ("refs(umd).p", {"3": "image 1 is in split train, too", "4": "image 1 of split train has the same bytes"}),
        ("grefs(unc).json", {"3": "image 1 is in split train, too", "4": "image 1 of split train has the same bytes"}),
        ("refs(google).p", {}),
    ],
)  # fmt: skip
def test_splits_share_no_image_where_the_publisher_promises_it(
    tmp_path: Path, name: str, found: dict[str, str]
) -> None:
    general = name.startswith("grefs")
    path = acquired(tmp_path, "set", "grefcoco" if general else "refer")
    write_coco(path, [1, 2, 3], [coco_annotation(number, number) for number in (1, 2, 3)])
    (path / "images" / f"{2:012d}.jpg").write_bytes(jpeg(seed=1))

    def record(number: int, image_id: int, split: str) -> dict[str, Any]:
        changes: dict[str, Any] = {"no_target": False} if general else {}
        return reference(number, image_id, [image_id] if general else image_id, split=split, **changes)

    records = [record(1, 1, "train"), record(2, 1, "train"), record(3, 1, "val"), record(4, 2, "testA")]
    report, quarantined = prepared(path, tmp_path, [*records, record(5, 3, "val")], name)
    assert quarantined == found
    assert named(report, "contract").passed
    assert named(report, "expectations").passed
    same = warnings_of(report).get("image_bytes_unique")
    assert (same is None) == bool(found), "a row that is quarantined is not warned of, too"


def test_what_is_said_twice_of_the_same_targets_is_named_and_stays(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "refer")
    write_coco(path, [1], [coco_annotation(1, 1), coco_annotation(2, 1)])
    records = [
        reference(1, 1, 1, sentences=[sentence("left cup"), sentence("left cup ")]),
        reference(2, 1, 1, sentences=[sentence("the cup")]),
        reference(3, 1, 1, sentences=[sentence("a cup"), sentence("the cup")]),
        reference(4, 1, 2, sentences=[sentence("the cup")]),
    ]
    report, _ = prepared(path, tmp_path, records, "refs(unc).p")
    warned = warnings_of(report)["expression_unique"]
    assert warned["rows"] == 2
    assert "1 ('left cup' as in record 1)" in warned["first_ids"]
    assert "3 ('the cup' as in record 2)" in warned["first_ids"]
    assert report.figures["rows_accepted"] == 4
    check = named(report, "warnings")
    assert not check.passed
    assert not check.blocking
    assert "50.00% of the accepted rows (limit 20.00%)" in check.reason
    assert "mask_unique" not in warnings_of(report), "two records may mean the same"


def test_masks_and_pictures_that_come_twice_in_sa1b_are_named_and_stay(tmp_path: Path) -> None:
    path = acquired(tmp_path, "batch", "sa1b")
    other = annotation(2, segmentation=rle(box_mask(5, 4, 10, 6)), bbox=[5.0, 4.0, 9.0, 5.0])
    for number, masks in ((1, [annotation(1), other, annotation(3)]), (2, [annotation(1)])):
        (path / f"sa_{number}.jpg").write_bytes(jpeg(seed=7))
        (path / f"sa_{number}.json").write_bytes(sa1b_json(number, masks))
    given = context(tmp_path, "prepare_sa1b", "batch")
    report = prepare(SA1B, path, 0.0, ContractConfig(max_warned_share=1.0), given)
    assert report.figures["rows_accepted"] == 4
    warned = warnings_of(report)
    assert warned["mask_unique"]["first_ids"] == "sa_1: 3 (mask 1 has the same runs)"
    assert warned["image_bytes_unique"]["first_ids"] == "sa_2: 1 (image 1 has the same bytes)"
    assert named(report, "warnings").passed


def test_a_picture_under_another_id_stays_on_its_side_of_the_split(tmp_path: Path) -> None:
    """Also where the first one was met by a run that was killed."""
    ids = [str(number) for number in range(1, 30)]
    held_out = next(name for name in ids if split_by_hash(name, HELD_OUT) == "held_out")
    trained = next(name for name in ids if split_by_hash(name, HELD_OUT) == "train")
    path = acquired(tmp_path, "batch", "sa1b")
    for name in (held_out, trained):
        (path / f"sa_{name}.jpg").write_bytes(jpeg())
        (path / f"sa_{name}.json").write_bytes(sa1b_json(int(name), [annotation(1)]))
    raw = {image.image_id: image for image in open_sa1b(path).images}
    measured = {name: measure_image(raw[name], SA1B.contract.convention, 10**6) for name in raw}

    def judge(seen: Seen) -> Judge:
        return Judge(
            contract=SA1B.contract,
            seen=seen,
            split_of=lambda image, row: split_by_hash(image.raw.image_id, HELD_OUT),
        )

    first = judge(Seen(across_images=False))
    assert first.verdicts([measured[held_out]])[0][0].rule is None
    place = first.place(measured[held_out])
    later = Seen(across_images=False)
    later.restore([held_out], [], {measured[held_out].sha256[:32]: tuple(place)})  # type: ignore[dict-item]
    for again in (first, judge(later)):
        (verdict,) = again.verdicts([measured[trained]])[0]
        assert verdict.rule is not None
        assert verdict.rule.name == RULE
        assert verdict.value == f"image {held_out} of split held_out has the same bytes"
