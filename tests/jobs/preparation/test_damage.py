"""Damaged masks, numbers and ids: the right verdict with its value, and nothing else lost."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from alto_models.masks import decode
from jobs.formats.raw import RawDataset
from jobs.formats.refer import open_grefcoco, open_refer
from jobs.formats.sa1b import open_sa1b
from jobs.preparation.contract_frame import Judge, Verdict
from jobs.preparation.kind import Kind
from jobs.preparation.measuring import measure_image
from jobs.preparation.referring import REFERRING
from jobs.preparation.rows import split_of
from jobs.preparation.sa1b import SA1B
from jobs.preparation.seen import Seen
from tests.jobs.raw_data import (
    HEIGHT,
    WIDTH,
    annotation,
    box_mask,
    coco_annotation,
    jpeg,
    reference,
    rle,
    sa1b_json,
    write_coco,
)

SIZE = [HEIGHT, WIDTH]
PIXELS = HEIGHT * WIDTH
RIGHT: dict[str, Any] = rle(box_mask(3, 4, 10, 6))
GOOD = 1  # id of the right mask beside each damaged one

# Of one cause each, in both forms of RLE: segmentation -> the rule it breaks.
RUNS: list[tuple[str, Any, str]] = [
    ("short", {"size": SIZE, "counts": [100, 60]}, "runs_fill_mask"),
    ("short by one", {"size": SIZE, "counts": [100, 60, PIXELS - 161]}, "runs_fill_mask"),
    ("short, compressed", RIGHT | {"counts": RIGHT["counts"][:6]}, "runs_fill_mask"),
    ("no run", {"size": SIZE, "counts": []}, "runs_fill_mask"),
    ("empty string", {"size": SIZE, "counts": ""}, "mask_readable"),
    ("long", {"size": SIZE, "counts": [100, 60, PIXELS]}, "runs_fill_mask"),
    ("long by one", {"size": SIZE, "counts": [100, 60, PIXELS - 159]}, "runs_fill_mask"),
    ("long, compressed", RIGHT | {"counts": RIGHT["counts"] + "11"}, "runs_fill_mask"),
    ("negative", {"size": SIZE, "counts": [200, -40, PIXELS - 160]}, "runs_not_negative"),
    ("first negative", {"size": SIZE, "counts": [-1, 61, PIXELS - 60]}, "runs_not_negative"),
    ("negative, compressed", RIGHT | {"counts": "O" + RIGHT["counts"]}, "runs_not_negative"),
    ("turned", RIGHT | {"size": [WIDTH, HEIGHT]}, "mask_width_fits_image"),
    ("higher", RIGHT | {"size": [HEIGHT + 1, WIDTH]}, "mask_height_fits_image"),
    ("wider", RIGHT | {"size": [HEIGHT, WIDTH + 1]}, "mask_width_fits_image"),
    ("size 0", RIGHT | {"size": [0, 0]}, "mask_readable"),
    ("size negative", RIGHT | {"size": [-HEIGHT, -WIDTH]}, "mask_readable"),
    ("size of floats", RIGHT | {"size": [float(HEIGHT), float(WIDTH)]}, "mask_readable"),
    ("size of one", RIGHT | {"size": [HEIGHT]}, "mask_readable"),
    ("size missing", {"counts": RIGHT["counts"]}, "mask_readable"),
    ("size huge", RIGHT | {"size": [10**18, 10**18]}, "mask_readable"),
    ("space", RIGHT | {"counts": " " + RIGHT["counts"]}, "mask_readable"),
    ("newline", RIGHT | {"counts": RIGHT["counts"] + "\n"}, "mask_readable"),
    ("umlaut", RIGHT | {"counts": "ä" + RIGHT["counts"]}, "mask_readable"),
    ("above the alphabet", RIGHT | {"counts": "p" + RIGHT["counts"]}, "mask_readable"),
    ("zero byte", RIGHT | {"counts": "\0" + RIGHT["counts"]}, "mask_readable"),
    ("cut inside a run", RIGHT | {"counts": RIGHT["counts"] + "P"}, "mask_readable"),
    ("run over 32 bits", {"size": SIZE, "counts": [2**32, PIXELS - 2**32]}, "mask_readable"),
    ("run over 64 bits", {"size": SIZE, "counts": [2**70]}, "mask_readable"),
    ("run of 400 digits", {"size": SIZE, "counts": [10**400]}, "mask_readable"),
    ("endless run", RIGHT | {"counts": "o" * 5000 + "0"}, "mask_readable"),
    ("runs of floats", {"size": SIZE, "counts": [100.0, 60.0, 800.0]}, "mask_readable"),
    ("runs of truth values", {"size": SIZE, "counts": [True, False]}, "mask_readable"),
    ("runs of strings", {"size": SIZE, "counts": ["100", "60", "800"]}, "mask_readable"),
    ("runs of null", {"size": SIZE, "counts": None}, "mask_readable"),
    ("all background", {"size": SIZE, "counts": [PIXELS]}, "mask_not_empty"),
]


def judged(kind: Kind, dataset: RawDataset) -> list[Verdict]:
    judge = Judge(
        contract=kind.contract,
        seen=Seen(across_images=kind.rows_unique_across_images),
        split_of=lambda image, row: split_of(image, row, 0.0),
        splits_share_no_image=dataset.splits_share_no_image,
    )
    measured = [measure_image(raw, kind.contract.convention, 10**6) for raw in dataset.images]
    verdicts, accepted = judge.verdicts(measured)
    assert len(verdicts) == sum(len(image.rows) for image in measured), "accepted + quarantined = read"
    assert len(accepted) == sum(max(1, len(v.row.masks)) for v in verdicts if v.rule is None)
    assert all(verdict.value for verdict in verdicts if verdict.rule is not None)
    return verdicts


def sa1b(folder: Path, *rows: Any, **image: Any) -> dict[str, str | None]:
    """Rule by row of an SA-1B image with a right mask and these rows."""
    (folder / "sa_5.jpg").write_bytes(jpeg())
    (folder / "sa_5.json").write_bytes(sa1b_json(5, [annotation(GOOD), *rows], **image))
    verdicts = judged(SA1B, open_sa1b(folder))
    return {v.row.raw.row_id: v.rule.name if v.rule else None for v in verdicts}


@pytest.mark.parametrize(
    ("segmentation", "rule"), [case[1:] for case in RUNS], ids=[case[0] for case in RUNS]
)
def test_damaged_runs_of_sa1b(tmp_path: Path, segmentation: Any, rule: str) -> None:
    assert sa1b(tmp_path, annotation(2, segmentation=segmentation)) == {str(GOOD): None, "2": rule}


@pytest.mark.parametrize(
    ("segmentation", "rule"), [case[1:] for case in RUNS], ids=[case[0] for case in RUNS]
)
def test_damaged_runs_of_references(tmp_path: Path, segmentation: Any, rule: str) -> None:
    write_coco(tmp_path, [1], [coco_annotation(1, 1), coco_annotation(2, 1, segmentation=segmentation)])
    records = [reference(1, 1, [1]), reference(2, 1, [2]), reference(3, 1, [1, 2])]
    found = grefcoco(tmp_path, records)
    assert found == {"1": None, "2": rule, "3": rule}


def grefcoco(folder: Path, records: list[dict[str, Any]]) -> dict[str, str | None]:
    (folder / "grefs(unc).json").write_text(json.dumps([{"no_target": False} | row for row in records]))
    verdicts = judged(REFERRING, open_grefcoco(folder))
    return {v.row.raw.row_id: v.rule.name if v.rule else None for v in verdicts}


NUMBERS: list[tuple[str, Any, set[str]]] = [
    ("nan", float("nan"), {"numbers_finite"}),
    ("infinite", float("inf"), {"numbers_finite"}),
    ("minus infinite", float("-inf"), {"numbers_finite"}),
    ("string", "60", {"fields_complete"}),
    ("truth value", True, {"fields_complete"}),
    ("list", [60], {"fields_complete"}),
    ("object", {"value": 60}, {"fields_complete"}),
    ("400 digits", 10**400, {"fields_complete", "numbers_finite"}),
    ("negative", -60.0, {"area_as_stated", "predicted_iou_in_range", "stability_score_in_range"}),
    ("huge", 1e300, {"area_as_stated", "predicted_iou_in_range", "stability_score_in_range"}),
]


@pytest.mark.parametrize("field", ["area", "predicted_iou", "stability_score"])
@pytest.mark.parametrize(
    ("value", "rules"), [case[1:] for case in NUMBERS], ids=[case[0] for case in NUMBERS]
)
def test_wrong_numbers_of_sa1b(tmp_path: Path, field: str, value: Any, rules: set[str]) -> None:
    found = sa1b(tmp_path, annotation(2, **{field: value}))
    assert found.pop(str(GOOD)) is None
    assert found["2"] in rules


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [case[1] for case in NUMBERS], ids=[case[0] for case in NUMBERS])
def test_wrong_boxes_of_sa1b(tmp_path: Path, place: int, value: Any) -> None:
    box: list[Any] = [3.0, 4.0, 9.0, 5.0]
    box[place] = value
    found = sa1b(tmp_path, annotation(2, bbox=box))
    assert found.pop(str(GOOD)) is None
    assert found["2"] is not None
    boxes = {f"box_{edge}_in_image" for edge in ("left", "top", "right", "bottom")} | {"box_as_stated"}
    assert found["2"] in boxes | {"fields_complete", "numbers_finite"}


@pytest.mark.parametrize("field", ["width", "height"])
@pytest.mark.parametrize("value", [float("nan"), -5, 0, "40", 2**40, 40.5, None, WIDTH + HEIGHT])
def test_a_wrong_size_takes_the_whole_image_and_no_other(tmp_path: Path, field: str, value: Any) -> None:
    (tmp_path / "sa_6.jpg").write_bytes(jpeg(seed=6))
    (tmp_path / "sa_6.json").write_bytes(sa1b_json(6, [annotation(61)]))
    found = sa1b(tmp_path, annotation(2), **{field: value})
    assert found.pop("61") is None
    rules = {"fields_complete", "numbers_finite", f"image_{field}_as_stated"}
    assert set(found) == {str(GOOD), "2"}
    assert set(found.values()) <= rules


Edit = Callable[[list[dict[str, Any]], list[dict[str, Any]], Path], None]


def second_annotation(annotations: list[dict[str, Any]], records: list[dict[str, Any]], folder: Path) -> None:
    annotations.append(coco_annotation(2, 1, 2))


def no_such_category(annotations: list[dict[str, Any]], records: list[dict[str, Any]], folder: Path) -> None:
    annotations[1]["category_id"] = 99


def no_file(annotations: list[dict[str, Any]], records: list[dict[str, Any]], folder: Path) -> None:
    (folder / "images" / f"{2:012d}.jpg").unlink()


IDENTITIES: list[tuple[str, Edit, dict[str, str | None]]] = [
    ("record twice", lambda a, r, f: r[1].update(ref_id=1), {"1": "row_unique", "3": None}),
    ("target elsewhere", lambda a, r, f: r[1].update(ann_id=3), {"1": None, "2": "annotation_exists", "3": None}),
    ("no such target", lambda a, r, f: r[1].update(ann_id=77), {"1": None, "2": "annotation_exists", "3": None}),
    ("no such image", lambda a, r, f: r[1].update(image_id=88), {"1": None, "2": "image_exists", "3": None}),
    ("no such category", no_such_category, {"1": None, "2": "category_exists", "3": None}),
    ("no image file", no_file, {"1": None, "2": None, "3": "image_exists"}),
    ("annotation id twice: the first counts", second_annotation, {"1": None, "2": None, "3": None}),
    ("two splits", lambda a, r, f: r[1].update(split="val"), {"1": None, "2": "splits_share_no_image", "3": None}),
    ("id of a list", lambda a, r, f: r[1].update(ref_id=[2]), {"1": None, "#1": "fields_complete", "3": None}),
    ("id of 400 digits", lambda a, r, f: r[1].update(ann_id=10**400), {"1": None, "2": "annotation_exists", "3": None}),
    ("id missing", lambda a, r, f: r[1].pop("ann_id"), {"1": None, "2": "fields_complete", "3": None}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "found"), [case[1:] for case in IDENTITIES], ids=[case[0] for case in IDENTITIES]
)
def test_ids_that_come_twice_lead_nowhere_or_cross_splits(
    tmp_path: Path, edit: Edit, found: dict[str, str | None]
) -> None:
    annotations = [coco_annotation(1, 1), coco_annotation(2, 1), coco_annotation(3, 2)]
    records = [reference(1, 1, 1), reference(2, 1, 2), reference(3, 2, 3)]
    write_coco(tmp_path, [1, 2], annotations)
    edit(annotations, records, tmp_path)
    content = json.loads((tmp_path / "instances.json").read_text()) | {"annotations": annotations}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(records, protocol=2))
    verdicts = judged(REFERRING, open_refer(tmp_path))
    assert {v.row.raw.row_id: v.rule.name if v.rule else None for v in verdicts} == found


any_number = st.one_of(
    st.integers(-(2**40), 2**40), st.floats(), st.none(), st.booleans(), st.text(max_size=4), st.just(10**400)
)
some_runs = st.one_of(
    st.lists(st.integers(-5, PIXELS), max_size=6),
    st.lists(any_number, max_size=4),
    st.text(st.characters(min_codepoint=40, max_codepoint=130), max_size=40),
    st.just(RIGHT["counts"]),
)
some_segmentation = st.one_of(
    st.fixed_dictionaries({"size": st.sampled_from([SIZE, SIZE, [WIDTH, HEIGHT], [0, 1], None]), "counts": some_runs}),
    any_number,
    st.dictionaries(st.sampled_from(["size", "counts"]), any_number),
)  # fmt: skip
some_row = st.one_of(
    any_number,
    st.builds(
        lambda segmentation, area, score, box: annotation(
            9, segmentation=segmentation, area=area, stability_score=score, bbox=box
        ),
        some_segmentation,
        st.one_of(st.just(60), any_number),
        st.one_of(st.just(0.9), any_number),
        st.one_of(st.just([3.0, 4.0, 9.0, 5.0]), st.lists(any_number, max_size=5)),
    ),
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(some_row, max_size=3))
def test_whatever_rows_hold_they_are_judged_and_the_right_one_stays(
    rows: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "sa_5.jpg").write_bytes(jpeg())
    (folder / "sa_5.json").write_bytes(sa1b_json(5, [annotation(GOOD), *rows]))
    first, *others = judged(SA1B, open_sa1b(folder))
    assert first.rule is None
    assert len(others) == len(rows)
    for row, verdict in zip(rows, others, strict=True):
        if verdict.rule is None:
            (mask,) = verdict.row.masks
            assert mask.rle is not None
            segmentation = row["segmentation"]
            if isinstance(segmentation["counts"], list):
                segmentation = coco.frPyObjects(segmentation, *SIZE)
            np.testing.assert_array_equal(decode(mask.rle), coco.decode(segmentation))
            assert row["area"] == decode(mask.rle).sum()
