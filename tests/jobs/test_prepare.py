"""Prepare stages: every row accepted or quarantined with its reason, and the accepted ones exact."""

import hashlib
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image
from pycocotools import mask as coco

from alto_models import masks as mask_arithmetic
from alto_models.data.masks import MaskImages
from alto_models.data.referring import ReferringImages
from data_contracts.errors import InputError
from data_contracts.masks import SA1B_CONTRACT
from data_contracts.schemas import MASKS_SCHEMA, QUARANTINE_SCHEMA, REFERRING_SCHEMA
from jobs import prepare_benchmark, prepare_referring, prepare_sa1b
from jobs.preparation import shards
from jobs.runner.context import StageReport
from tests.jobs.raw_data import (
    HEIGHT,
    WIDTH,
    acquired,
    add_member,
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

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="real sample data (../shared/data) is not here")


def prepare_masks(folder: Path, **settings: Any) -> tuple[StageReport, Path]:
    given = context(folder, "prepare_sa1b", "batch")
    report = prepare_sa1b.run(prepare_sa1b.Config(**({"held_out_share": 0.2} | settings)), given)
    return report, given.output


def prepare_records(folder: Path, limit: float = 1.0, **settings: Any) -> tuple[StageReport, Path]:
    given = context(folder, "prepare_referring", "set")
    parameters = {"datasets": {"set": settings}, "contract": {"max_quarantined_share": limit}}
    report = prepare_referring.run(prepare_referring.Config.model_validate(parameters), given)
    return report, given.output


def quarantined(output: Path) -> list[dict[str, Any]]:
    table = pq.read_table(output / "quarantine.parquet")
    assert table.schema.equals(QUARANTINE_SCHEMA)
    return table.to_pylist()


def rules_of(output: Path, kind: str) -> dict[str, str]:
    return {row["row_id"]: row["rule"] for row in quarantined(output) if row["kind"] == kind}


def assert_accounted_for(report: StageReport, output: Path, read: int) -> None:
    figures: dict[str, Any] = dict(report.figures)
    assert figures["rows_read"] == read
    assert figures["rows_accepted"] + figures["rows_quarantined"] == read
    assert figures["rows_quarantined"] == sum(row["rows"] for row in quarantined(output))


RIGHT: dict[str, Any] = rle(box_mask(3, 4, 10, 6))
SHORT = {"size": [HEIGHT, WIDTH], "counts": [100, 60]}
LONG = {"size": [HEIGHT, WIDTH], "counts": [100, 60, 10_000]}
NEGATIVE = {"size": [HEIGHT, WIDTH], "counts": [1000, 60, -100]}
# id -> (annotation, the rule it breaks)
BROKEN_MASKS: dict[int, tuple[Any, str]] = {
    101: (annotation(101, segmentation=SHORT), "runs_fill_mask"),
    102: (annotation(102, segmentation=LONG), "runs_fill_mask"),
    103: (annotation(103, segmentation=NEGATIVE), "runs_not_negative"),
    104: (annotation(104, segmentation={"size": [HEIGHT, WIDTH], "counts": "\x7fgarbage"}), "mask_readable"),
    105: (annotation(105, segmentation=RIGHT | {"counts": RIGHT["counts"][:-1]}), "mask_readable"),
    106: (annotation(106, segmentation=RIGHT | {"size": [WIDTH, HEIGHT]}), "mask_width_fits_image"),
    107: (annotation(107, segmentation=RIGHT | {"size": [HEIGHT + 1, WIDTH]}), "mask_height_fits_image"),
    108: (annotation(108, segmentation={"size": "large"}), "mask_readable"),
    109: (annotation(109, segmentation="no"), "fields_complete"),
    110: (annotation(110, area=61), "area_as_stated"),
    111: (annotation(111, bbox=[3.0, 4.0, 10.0, 6.0]), "box_as_stated"),
    112: (annotation(112, bbox=[3.0, 4.0, 9.0, 50.0]), "box_bottom_in_image"),
    113: (annotation(113, bbox=[3.0, 4.0]), "fields_complete"),
    114: (annotation(114, stability_score=None), "fields_complete"),
    115: (annotation(115, predicted_iou="0.9"), "fields_complete"),
    116: (annotation(116, predicted_iou=float("nan")), "numbers_finite"),
    117: (annotation(117, area=float("inf")), "numbers_finite"),
    118: (annotation(118, predicted_iou=-0.1), "predicted_iou_in_range"),
    119: (annotation(119, stability_score=1.5), "stability_score_in_range"),
    120: (annotation(120, segmentation=rle(box_mask(0, 0, 0, 0)), area=0), "mask_not_empty"),
    122: (annotation(122, bbox=[3.0, 4.0, 10**400, 5.0]), "fields_complete"),
    121: (annotation(121, segmentation={"size": [10**30, 1], "counts": [1]}), "mask_readable"),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageReport, Path]:
    """A shard with every kind of damage among right images, prepared."""
    folder = tmp_path_factory.mktemp("damaged")
    path = acquired(folder, "batch", "sa1b")
    masks = [annotation(1), annotation(2), annotation(2), *[row for row, _ in BROKEN_MASKS.values()], 7]
    one = [annotation(1)]
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    with tarfile.open(path / "sa_000000.tar", "w") as tar:
        for name, image, content in [
            ("sa_1", jpeg(), sa1b_json(1, masks)),
            ("sa_2", b"", sa1b_json(2, one)),
            ("sa_3", jpeg()[:-200], sa1b_json(3, one * 2)),
            ("sa_4", jpeg(WIDTH + 1), sa1b_json(4, one)),
            ("sa_5", jpeg(), b"{not json"),
            ("sa_6", jpeg(), sa1b_json(6, one, width=None)),
            ("sa_7", b"GIF89a nonsense", sa1b_json(7, one)),
            ("sa_8", jpeg(2000, 1000), sa1b_json(8, one, width=2000, height=1000)),
            ("sa_9", jpeg(), sa1b_json(1, one)),
            ("sa_10", jpeg(), sa1b_json(10, [])),
            ("sa_11", jpeg(mode="CMYK"), sa1b_json(11, one)),
            ("sa_12", jpeg(mode="L"), sa1b_json(12, one)),
            ("sa_19", jpeg(exif=turned), sa1b_json(19, one)),
        ]:
            add_member(tar, f"./{name}.jpg", image)
            add_member(tar, f"./{name}.json", content)
        # Neither a JSON string nor a file name need be Unicode.
        add_member(tar, "sa_20.jpg", jpeg())
        add_member(tar, "sa_20.json", sa1b_json(20, [annotation(0, id="\ud800")]))
        add_member(tar, "sa_\udcff.jpg", jpeg())
        add_member(tar, "sa_13.json", sa1b_json(13, one))
        add_member(tar, "sa_14.jpg", jpeg())
        add_member(tar, "../sa_15.jpg", jpeg())
        add_member(tar, "/sa_16.jpg", jpeg())
        add_member(tar, "sa_17.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add_member(tar, "sa_18.jpg", b"", type=tarfile.LNKTYPE, linkname="sa_1.jpg")
        add_member(tar, "notes.txt", b"hello")
    with tarfile.open(path / "sa_000001.tar", "w") as tar:
        add_member(tar, "sa_50.jpg", jpeg())
        add_member(tar, "sa_50.json", sa1b_json(50, one))
    (path / "sa_000001.tar").write_bytes((path / "sa_000001.tar").read_bytes()[:700])
    return prepare_masks(folder, contract={"max_quarantined_share": 1.0, "max_image_pixels": 1_000_000})


@pytest.mark.parametrize("annotation_id", BROKEN_MASKS)
def test_a_broken_mask_is_quarantined_with_its_rule(
    damaged: tuple[StageReport, Path], annotation_id: int
) -> None:
    row = next(row for row in quarantined(damaged[1]) if row["row_id"] == str(annotation_id))
    assert row["rule"] == BROKEN_MASKS[annotation_id][1]
    assert row["kind"] == "mask"
    assert row["image_id"] == "1"
    assert row["source_file"] == "sa_000000.tar/sa_1"
    assert row["value"]
    assert row["reason"]


def test_no_value_differs_from_run_to_run(damaged: tuple[StageReport, Path]) -> None:
    report, output = damaged
    values = [row["value"] for row in quarantined(output)] + [str(check) for check in report.checks]
    assert not [value for value in values if " at 0x" in value or str(output.parents[1]) in value]


@pytest.mark.parametrize(
    ("image_id", "rule", "rows"),
    [
        ("2", "image_decodes", 1),
        ("3", "image_decodes", 2),
        ("4", "image_width_as_stated", 1),
        ("5", "annotations_readable", 1),
        ("7", "image_decodes", 1),
        ("8", "image_pixel_limit", 1),
        ("1", "image_unique", 1),
        ("13", "image_exists", 1),
        ("14", "annotations_readable", 1),
        ("../sa_15.jpg", "archive_member", 1),
        ("/sa_16.jpg", "archive_member", 1),
        ("sa_17.jpg", "archive_member", 1),
        ("sa_18.jpg", "archive_member", 1),
        ("notes.txt", "archive_member", 1),
        ("sa_000001.tar", "archive_readable", 1),
        ("50", "annotations_readable", 1),
    ],
)
def test_a_broken_image_takes_all_its_rows(
    damaged: tuple[StageReport, Path], image_id: str, rule: str, rows: int
) -> None:
    entries = [row for row in quarantined(damaged[1]) if row["kind"] == "image" and row["row_id"] == image_id]
    assert [(row["rule"], row["rows"]) for row in entries] == [(rule, rows)]


def test_the_rest_goes_on_and_everything_is_accounted_for(damaged: tuple[StageReport, Path]) -> None:
    report, output = damaged
    images = {image.image_id: image for image in MaskImages(output)}
    assert sorted(images) == ["1", "11", "12", "19"]
    assert [mask.mask_id for mask in images["1"].masks] == ["1", "2"]
    for image in images.values():
        assert image.image.shape == (HEIGHT, WIDTH, 3)
        for mask in image.masks:
            np.testing.assert_array_equal(mask_arithmetic.decode(mask.rle), box_mask(3, 4, 10, 6))
    masks_of_image_1 = 3 + len(BROKEN_MASKS) + 1
    rest = [row for row in quarantined(output) if row["image_id"] != "1" or row["kind"] == "image"]
    assert_accounted_for(report, output, masks_of_image_1 + sum(row["rows"] for row in rest) + 3)
    assert rules_of(output, "mask")["\\ud800"] == "fields_complete"
    assert rules_of(output, "image")["\\udcff"] == "annotations_readable"
    assert all(check.passed for check in report.checks)
    assert report.figures["quarantined_runs_fill_mask"] == 2
    assert (output / "pictures" / "quarantined.png").exists()


def test_nothing_is_written_outside_the_output(damaged: tuple[StageReport, Path]) -> None:
    folder = damaged[1].parents[1]
    assert {path.name for path in folder.iterdir()} == {"acquired", "prepare_sa1b"}
    assert {path.name for path in damaged[1].iterdir()} == {
        "manifest.parquet",
        "page.html",
        "pictures",
        "quarantine.parquet",
        "shard-00000.parquet",
        "statistics.json",
    }
    assert (damaged[1].parent / "work" / "data_docs" / "index.html").exists()


def test_too_many_broken_rows_fail_the_check(tmp_path: Path) -> None:
    path = acquired(tmp_path, "batch", "sa1b")
    rows = [annotation(number) for number in range(9)] + [annotation(9, area=1)]
    (path / "sa_1.jpg").write_bytes(jpeg())
    (path / "sa_1.json").write_bytes(sa1b_json(1, rows))
    contract = prepare_masks(tmp_path, contract={"max_quarantined_share": 0.09})[0].checks[0]
    assert contract.name == "contract"
    assert contract.blocking
    assert not contract.passed
    assert "1 of 10 rows" in contract.reason
    assert "area_as_stated 1" in contract.reason
    (row,) = contract.details["rules"]
    assert (row["rule"], row["rows"], row["breach"]) == ("area_as_stated", 1, "damage")
    assert row["first_ids"].startswith("sa_1: 9")
    assert row["why"] == SA1B_CONTRACT["area_as_stated"].why


def test_a_data_set_without_rows_fails_the_check(tmp_path: Path) -> None:
    acquired(tmp_path, "batch", "sa1b")
    report, _ = prepare_masks(tmp_path)
    assert not report.checks[0].passed
    assert "no row was accepted" in report.checks[0].reason


def test_same_input_same_bytes_and_stable_split(tmp_path: Path) -> None:
    digests, splits = [], []
    for run in ("a", "b"):
        path = acquired(tmp_path / run, "batch", "sa1b")
        for number in range(1, 41):
            (path / f"sa_{number}.jpg").write_bytes(jpeg(seed=number))
            (path / f"sa_{number}.json").write_bytes(
                sa1b_json(number, [annotation(1), annotation(2, area=3)])
            )
        output = prepare_masks(tmp_path / run, contract={"max_quarantined_share": 0.5})[1]
        files = sorted(file for file in output.rglob("*") if file.is_file())
        digests.append(
            {str(f.relative_to(output)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
        )
        splits.append({image.image_id for image in MaskImages(output, "held_out")})
    assert digests[0] == digests[1]
    assert splits[0] == splits[1]
    assert 0 < len(splits[0]) < 20
    manifest = pq.read_table(output / "manifest.parquet").to_pandas()
    assert len(manifest) == 40
    assert set(manifest["boundary_length"]) == {28}


def test_images_are_spread_over_shards_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 4)
    monkeypatch.setattr(shards, "IMAGES_PER_ROW_GROUP", 2)
    path = acquired(tmp_path, "batch", "sa1b")
    for number in range(1, 10):
        (path / f"sa_{number}.jpg").write_bytes(jpeg(seed=number))
        (path / f"sa_{number}.json").write_bytes(sa1b_json(number, [annotation(1)]))
    output = prepare_masks(tmp_path)[1]
    files = sorted(output.glob("shard-*.parquet"))
    assert [pq.read_metadata(file).num_rows for file in files] == [4, 4, 1]
    assert [pq.read_metadata(file).num_row_groups for file in files] == [2, 2, 1]
    assert [image.image_id for image in MaskImages(output)] == [str(number) for number in range(1, 10)]


def test_an_unknown_or_unfit_format_is_one_clear_line(tmp_path: Path) -> None:
    acquired(tmp_path, "batch", "refer")
    with pytest.raises(InputError, match="format 'refer' is not one this stage reads"):
        prepare_masks(tmp_path)
    (tmp_path / "acquired" / "batch" / "dataset.json").unlink()
    given = context(tmp_path / "again", "prepare_benchmark", "batch")
    with pytest.raises(InputError, match=r"no settings for `batch`"):
        prepare_benchmark.run(prepare_benchmark.Config(benchmarks={}), given)


@pytest.fixture(scope="module")
def refer(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageReport, Path]:
    folder = tmp_path_factory.mktemp("refer")
    path = acquired(folder, "set", "grefcoco")
    polygon = [[5.0, 4.0, 20.0, 4.0, 20.0, 16.0, 5.0, 16.0]]
    area = int(coco.area(coco.frPyObjects(polygon, HEIGHT, WIDTH))[0])
    annotations = [
        coco_annotation(1, 1),
        coco_annotation(2, 1, 2, segmentation=polygon, area=area + 3.3, bbox=[5.0, 4.0, 15.0, 12.0]),
        coco_annotation(3, 1, segmentation={"size": [HEIGHT, WIDTH], "counts": [100, 60, 800]}, bbox=None),
        coco_annotation(4, 2),
        coco_annotation(5, 2, 99),
        coco_annotation(6, 1, segmentation=polygon, area=500.0, bbox=[5.0, 4.0, 15.0, 12.0]),
    ]
    write_coco(path, [1, 2], annotations)

    def gref(ref_id: int, image_id: int, ann_ids: list[int], **changes: Any) -> dict[str, Any]:
        return reference(ref_id, image_id, ann_ids, **({"no_target": ann_ids == [-1]} | changes))

    references = [
        gref(1, 1, [1]),
        gref(2, 1, [1, 2], sentences=[sentence("cup and plate"), sentence(" both ")]),
        gref(3, 1, [-1]),
        gref(4, 1, [1, 1]),
        gref(5, 1, [77]),
        gref(6, 1, [4]),
        gref(7, 1, [-1], no_target=False),
        gref(8, 1, [1], no_target=True),
        gref(9, 1, [1], sentences=[sentence("cup"), sentence("  ")]),
        gref(10, 1, [1], sentences=[]),
        gref(11, 1, [3]),
        gref(12, 2, [5]),
        gref(13, 9, [1]),
        gref(14, 1, [1], split=None),
        gref(15, 1, [1], sentences=[sentence("cup " * 1000)]),
        gref(16, 1, [6]),
        gref(1, 2, [4]),
        gref(18, 1, [1, 77]),
        gref(19, 1, [1], split="val"),
    ]
    (path / "grefs(unc).json").write_text(json.dumps(references))
    return prepare_records(folder)


def test_wrong_records_are_quarantined_with_their_rule(refer: tuple[StageReport, Path]) -> None:
    report, output = refer
    assert_accounted_for(report, output, 19)
    assert rules_of(output, "record") == {
        "4": "row_unique",
        "5": "annotation_exists",
        "6": "annotation_exists",
        "7": "target_has_mask",
        "8": "no_target_has_no_mask",
        "9": "expression_not_empty",
        "10": "has_expression",
        "11": "fields_complete",
        "12": "category_exists",
        "14": "fields_complete",
        "15": "expression_not_too_long",
        "16": "area_as_stated",
        "1": "row_unique",
        "18": "annotation_exists",
        "19": "splits_share_no_image",
    }
    assert rules_of(output, "image") == {"9": "image_exists"}


def test_records_merge_their_instances_and_keep_them(refer: tuple[StageReport, Path]) -> None:
    output = refer[1]
    first, both, nothing = ReferringImages(output, "train")[0].records
    assert [record.record_id for record in (first, both, nothing)] == ["1", "2", "3"]
    assert nothing.no_target
    assert nothing.rle is None
    assert both.expressions == ("cup and plate", "both")
    assert [(item.instance_id, item.category) for item in both.instances] == [("1", "cup"), ("2", "plate")]
    union = np.logical_or.reduce([mask_arithmetic.decode(item.rle) for item in both.instances])
    assert both.rle is not None
    np.testing.assert_array_equal(mask_arithmetic.decode(both.rle), union)
    assert both.area == union.sum()


@needs_shared
def test_real_sa1b_is_accepted_whole_and_exact(tmp_path: Path) -> None:
    path = acquired(tmp_path, "batch", "sa1b")
    truth: dict[str, Any] = {}
    with tarfile.open(path / "sa_000000.tar", "w") as tar:
        for number, file in enumerate(sorted((SHARED / "sa1b").glob("*.json"))):
            truth |= {str(row["id"]): row for row in json.loads(file.read_bytes())["annotations"]}
            for source in (file, file.with_suffix(".jpg")):
                if number == 0:
                    (path / source.name).write_bytes(source.read_bytes())
                else:
                    add_member(tar, source.name, source.read_bytes())
    report, output = prepare_masks(tmp_path, held_out_share=0.0, contract={"max_quarantined_share": 0.0})
    assert_accounted_for(report, output, 218)
    assert report.figures["rows_quarantined"] == 0
    for shard in output.glob("shard-*.parquet"):
        assert pq.read_schema(shard).equals(MASKS_SCHEMA)
        for row in pq.read_table(shard).to_pylist():
            largest = max(truth[mask["mask_id"]]["area"] for mask in row["masks"])
            assert row["largest_mask_share"] == pytest.approx(largest / max(row["width"], row["height"]) ** 2)
    for image in MaskImages(output):
        for mask in image.masks[::10]:
            published = coco.decode(truth[mask.mask_id]["segmentation"])
            np.testing.assert_array_equal(mask_arithmetic.decode(mask.rle), published)
            assert mask.area == published.sum()


@needs_shared
@pytest.mark.parametrize(
    ("name", "format_name", "rows"),
    [("alto_pairs", "alto_jsonl", 4), ("coco_instances", "coco_instances", 291)],
)
def test_real_referring_data_is_accepted_whole(
    tmp_path: Path, name: str, format_name: str, rows: int
) -> None:
    path = acquired(tmp_path, "set", format_name)
    for source in (SHARED / name).iterdir():
        (path / source.name).symlink_to(source)
    report, output = prepare_records(tmp_path, limit=0.0)
    assert_accounted_for(report, output, rows)
    assert report.figures["rows_quarantined"] == 0
    images = ReferringImages(output, "train")
    for shard in output.glob("shard-*.parquet"):
        assert pq.read_schema(shard).equals(REFERRING_SCHEMA)
    if name == "alto_pairs":
        assert [record.expressions for image in images for record in image.records] == [
            ("road",),
            ("metal",),
            ("cake",),
            ("pizza",),
        ]
        for number, image in enumerate(images):
            grey = np.asarray(Image.open(SHARED / name / "masks" / f"{number}.png"))
            rle_ = image.records[0].rle
            assert rle_ is not None
            np.testing.assert_array_equal(mask_arithmetic.decode(rle_), grey >= 128)
    else:
        truth = json.loads((SHARED / name / "instances.json").read_bytes())["annotations"]
        by_id = {str(row["id"]): row["segmentation"] for row in truth}
        instances = [item for image in images for record in image.records for item in record.instances]
        assert len(instances) == len(by_id)
        for item in instances[::7]:
            np.testing.assert_array_equal(
                mask_arithmetic.decode(item.rle), coco.decode(by_id[item.instance_id])
            )


def test_refer_pickles_are_read_and_unsplit_sets_split_by_hash(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "refer")
    write_coco(path, [1], [coco_annotation(1, 1)])
    (path / "refs(unc).p").write_bytes(pickle.dumps([reference(1, 1, 1, split="testA")], protocol=2))
    report, output = prepare_records(tmp_path)
    assert report.figures["images_testA"] == 1
    assert ReferringImages(output, "testA")[0].records[0].expressions == ("left cup",)

    path = acquired(tmp_path / "unsplit", "set", "coco_instances")
    write_coco(path, list(range(30)), [coco_annotation(n, n) for n in range(30)])
    report, output = prepare_records(tmp_path / "unsplit", held_out_share=0.3)
    assert 0 < len(ReferringImages(output, "held_out")) < 20
