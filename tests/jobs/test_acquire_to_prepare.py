"""Real pictures in every segmentation format, from a folder through acquire and prepare: nothing is lost."""

import json
import pickle
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from alto_models import masks as mask_arithmetic
from alto_models.data.referring import ReferringImages, ReferringRecord
from data_contracts.errors import InputError
from jobs import acquire_benchmark, acquire_referring, prepare_benchmark, prepare_referring
from jobs.runner.context import StageContext, StageReport
from jobs.runner.metric_log import MetricLog
from tests.jobs.published_data import (
    POLYGON,
    classes,
    mask_png,
    polygon_mask,
    psalm_annotations,
    psalm_entry,
    segment,
    shape,
    uncompressed,
    write_multi_class,
    write_psalm,
    write_reason,
    write_refcocom,
)
from tests.jobs.published_runs import decoded, records_of
from tests.jobs.raw_data import (
    HEIGHT,
    WIDTH,
    box_mask,
    coco_annotation,
    jpeg,
    reference,
    sentence,
    write_coco,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="real sample data (../shared/data) is not here")
IMAGES = 12
PURPOSES = {
    "referring": (acquire_referring, prepare_referring, "datasets"),
    "benchmark": (acquire_benchmark, prepare_benchmark, "benchmarks"),
}


def context(folder: Path, stage: str, inputs: dict[str, Path]) -> StageContext:
    output, work = folder / stage / "set", folder / f"{stage}_work"
    output.mkdir(parents=True)
    work.mkdir()
    return StageContext(
        stage=stage,
        partition="set",
        partition_items=(),
        seed=0,
        inputs=inputs,
        output=output,
        work=work,
        metric_log=MetricLog(work / "metrics.jsonl"),
    )


def through(
    folder: Path,
    source: Path,
    format_name: str,
    purpose: str = "benchmark",
    quarantined: int = 0,
    **chosen: Any,
) -> tuple[StageReport, Path]:
    """Acquire the source folder and prepare it; so many rows may be quarantined."""
    acquire, prepare, section = PURPOSES[purpose]
    acquired = context(folder, f"acquire_{purpose}", {})
    settings = {"format": format_name, "source": "folder", "folder": str(source)}
    acquire.run(acquire.Config.model_validate({section: {"set": settings}}), acquired)
    inputs = {acquired.stage: acquired.output.parent, "prepare_benchmark": folder / "prepare_benchmark"}
    prepared = context(folder, f"prepare_{purpose}", inputs)
    parameters = {section: {"set": chosen}, "contract": {"max_quarantined_share": 0.0}}
    report = prepare.run(prepare.Config.model_validate(parameters), prepared)
    figures: dict[str, Any] = dict(report.figures)
    assert figures["rows_quarantined"] == quarantined
    assert figures["rows_accepted"] + quarantined == figures["rows_read"]
    return report, prepared.output


def assert_equal(record: ReferringRecord, truth: np.ndarray) -> None:
    np.testing.assert_array_equal(decoded(record), truth, err_msg=record.record_id)


@pytest.fixture
def photos() -> dict[int, tuple[dict[str, Any], list[dict[str, Any]]]]:
    """COCO photos with their annotations, by image id."""
    content = json.loads((SHARED / "coco_instances" / "instances.json").read_bytes())
    of_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in content["annotations"]:
        of_image[row["image_id"]].append(row)
    chosen = [image for image in content["images"] if of_image[image["id"]]][:IMAGES]
    return {image["id"]: (image, of_image[image["id"]]) for image in chosen}


def copy_photos(photos: dict[int, tuple[dict[str, Any], list[Any]]], folder: Path, name: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (image, _) in photos.items():
        target = folder / (name.format(number) or Path(image["file_name"]).name)
        found = next((SHARED / "coco_instances").rglob(Path(image["file_name"]).name))
        shutil.copyfile(found, target)


@needs_shared
def test_the_four_pairs_of_alto(tmp_path: Path) -> None:
    source = Path(shutil.copytree(SHARED / "alto_pairs", tmp_path / "source"))
    report, output = through(tmp_path, source, "alto_jsonl", "referring")
    assert report.figures["rows_read"] == 4
    for number, record in enumerate(records_of(output).values()):
        assert_equal(record, np.asarray(Image.open(source / "masks" / f"{number}.png")) >= 128)


@needs_shared
def test_class_maps_as_multi_class_lines(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("images", "masks"):
        (source / name).mkdir(parents=True)
    names = [line.split(",")[5] for line in (SHARED / "ade20k150/objectInfo150.csv").read_text().splitlines()]
    lines: list[dict[str, Any]] = []
    truths = []
    for path in sorted((SHARED / "ade20k150" / "annotations").glob("*.png")):
        shutil.copyfile(SHARED / "ade20k150/images" / f"{path.stem}.jpg", source / f"images/{path.stem}.jpg")
        class_map = np.asarray(Image.open(path))
        present = [int(value) for value in np.unique(class_map) if value]
        for asked in [*([value] for value in present), present[:3], present]:
            truth = np.isin(class_map, asked)
            mask = f"masks/{len(lines)}.png"
            (source / mask).write_bytes(mask_png(truth))
            description = [names[value].split(";")[0] for value in asked]
            lines.append({"image": f"images/{path.stem}.jpg", "mask": mask, "description": description})
            truths.append(truth)
    (source / "ade.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report, output = through(tmp_path, source, "multi_class", annotations="ade.jsonl")
    assert report.figures["rows_read"] == len(lines) > 20
    records = records_of(output)
    for number, (line, truth) in enumerate(zip(lines, truths, strict=True), start=1):
        assert records[f"ade-{number}"].expressions == (", ".join(line["description"]),)
        assert_equal(records[f"ade-{number}"], truth)


@needs_shared
def test_photos_as_psalm_entries(tmp_path: Path, photos: dict[int, Any]) -> None:
    source = tmp_path / "source"
    copy_photos(photos, source / "images")
    entries, truths = [], {}
    for number, (image, rows) in enumerate(photos.values()):
        # Every second mask as a list of runs, as COCO writes its crowds.
        listed = [
            row | {"segmentation": uncompressed(coco.decode(row["segmentation"]))} if place % 2 else row
            for place, row in enumerate(rows)
        ]
        name = Path(image["file_name"]).name
        entries.append(psalm_entry(number, image["id"], listed, image=name, image_info=image))
        truths[f"val-{number}"] = np.logical_or.reduce([coco.decode(row["segmentation"]) for row in rows])
    (source / "grefcoco").mkdir()
    (source / "grefcoco" / "grefcoco_val.json").write_text(json.dumps(entries))
    report, output = through(tmp_path, source, "psalm", splits=["val"])
    assert report.figures["masks_accepted"] == sum(len(rows) for _, rows in photos.values())
    for name, record in records_of(output).items():
        assert_equal(record, truths[name])


@needs_shared
@pytest.mark.parametrize("format_name", ["refer", "grefcoco"])
def test_photos_as_references(tmp_path: Path, photos: dict[int, Any], format_name: str) -> None:
    source = tmp_path / "source"
    # COCO's own name of the folder, as people have it.
    copy_photos(photos, source / "train2014")
    content = json.loads((SHARED / "coco_instances" / "instances.json").read_bytes())
    for image in content["images"]:
        image["file_name"] = Path(image["file_name"]).name
    (source / "instances.json").write_text(json.dumps(content))
    references: list[dict[str, Any]] = []
    truths = {}
    for image_id, (_, rows) in photos.items():
        meant = [[row] for row in rows] if format_name == "refer" else [rows, rows[:1]]
        for targets in meant:
            number, ids = len(references), [row["id"] for row in targets]
            truths[str(number)] = np.logical_or.reduce([coco.decode(row["segmentation"]) for row in targets])
            references.append(reference(number, image_id, ids[0] if format_name == "refer" else ids))
    if format_name == "refer":
        (source / "refs(umd).p").write_bytes(pickle.dumps(references, protocol=0))
    else:
        written = [row | {"no_target": False} for row in references]
        (source / "grefs(unc).json").write_text(json.dumps(written))
    _, output = through(tmp_path, source, format_name, "referring")
    records = records_of(output)
    assert list(records) == list(truths)
    for name, record in records.items():
        assert_equal(record, truths[name])
        assert len(record.instances) == (len(references[int(name)]["ann_id"]) if "gref" in format_name else 1)


@needs_shared
def test_photos_as_segments(tmp_path: Path, photos: dict[int, Any]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_refcocom(source, {}, {})
    copy_photos(photos, source / "images", "COCO_train2014_{:012d}.jpg")
    segments, truths = [], {}
    for image_id, (_, rows) in photos.items():
        for row in rows:
            truth = coco.decode(row["segmentation"])
            (source / "masks" / f"{row['id']}.png").write_bytes(mask_png(truth, mode="P"))
            truths[f"val_part_only-{row['id']}"] = truth
            segments.append(segment(row["id"], image_id))
    (source / "annotations" / "val_part_only.json").write_text(json.dumps(segments))
    _, output = through(tmp_path, source, "refcocom")
    assert {image.image_id for image in ReferringImages(output)} == {str(image_id) for image_id in photos}
    records = records_of(output)
    assert set(records) == set(truths)
    for name, record in records.items():
        assert_equal(record, truths[name])


def small_source(source: Path, format_name: str) -> Path:
    """One right row of a format."""
    source.mkdir()
    if format_name == "psalm":
        write_psalm(source, "refcoco", "val", [psalm_entry(0, 3, [coco_annotation(1, 3)])])
    elif format_name == "reason_seg":
        write_reason(source, "val", "a", [shape("target", 3, 4, 13, 10)])
    elif format_name == "refcocom":
        write_refcocom(source, {"val_part_only": [segment(1)]}, {"1": mask_png(box_mask(3, 4, 10, 6))})
    elif format_name == "multi_class":
        write_multi_class(source, "ade", [classes(0)])
    else:
        write_coco(source, [1], [coco_annotation(1, 1)])
        references = [reference(1, 1, [1], no_target=False, sentences=[sentence("left cup")])]
        if format_name == "grefcoco":
            (source / "grefs(unc).json").write_text(json.dumps(references))
        elif format_name == "refer":
            (source / "refs(unc).p").write_bytes(pickle.dumps([references[0] | {"ann_id": 1}]))
    return source


FORMATS = ["psalm", "reason_seg", "refcocom", "multi_class", "refer", "grefcoco", "coco_instances"]


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("purpose", ["benchmark", pytest.param("referring", marks=pytest.mark.slow)])
def test_every_format_goes_through_both_ways(tmp_path: Path, format_name: str, purpose: str) -> None:
    report, output = through(tmp_path, small_source(tmp_path / "source", format_name), format_name, purpose)
    assert report.figures["rows_read"] == 1
    (record,) = records_of(output).values()
    assert_equal(record, box_mask(3, 4, 10, 6))


@pytest.mark.parametrize("format_name", ["refer", "grefcoco", "psalm"])
def test_instances_of_every_kind_are_merged_and_kept(tmp_path: Path, format_name: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    annotations = psalm_annotations(3)
    ids = [row["id"] for row in annotations]
    if format_name == "psalm":
        write_psalm(source, "grefcoco", "val", [psalm_entry(0, 3, annotations)])
    else:
        write_coco(source, [3], annotations)
        if format_name == "grefcoco":
            (source / "grefs(unc).json").write_text(json.dumps([reference(0, 3, ids, no_target=False)]))
        else:
            references = [reference(number, 3, number) for number in ids]
            (source / "refs(unc).p").write_bytes(pickle.dumps(references, protocol=1))
    _, output = through(tmp_path, source, format_name)
    records = list(records_of(output).values())
    truths = {
        str(ids[0]): coco.decode(annotations[0]["segmentation"]),
        str(ids[1]): polygon_mask(POLYGON),
        str(ids[2]): coco.decode(coco.frPyObjects(annotations[2]["segmentation"], HEIGHT, WIDTH)),
    }
    kept = {item.instance_id: item.rle for record in records for item in record.instances}
    assert list(kept) == list(truths)
    for name, rle in kept.items():
        np.testing.assert_array_equal(mask_arithmetic.decode(rle), truths[name])
    for record in records:
        own = [truths[item.instance_id] for item in record.instances]
        assert_equal(record, np.logical_or.reduce(own))
    assert [len(record.instances) for record in records] == ([1, 1, 1] if format_name == "refer" else [3])


def test_an_image_of_a_benchmark_in_another_format_is_kept_out_of_training(tmp_path: Path) -> None:
    """COCO's ids tell, though the bytes differ."""
    source = small_source(tmp_path / "refcocom", "refcocom")
    through(tmp_path, source, "refcocom")
    training = tmp_path / "training"
    training.mkdir()
    entries = [psalm_entry(number, image, []) for number, image in enumerate((7, 8))]
    write_psalm(training, "grefcoco", "train", entries)
    for entry, quality in zip(entries, (40, 50), strict=True):
        (training / "images" / entry["image"]).write_bytes(jpeg(quality=quality))
    report, output = through(tmp_path, training, "psalm", "referring", quarantined=1)
    assert list(records_of(output)) == ["train-1"]
    assert report.figures["quarantined_not_in_benchmark"] == 1


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, format_name: str, kind: str) -> None:
    source = small_source(tmp_path / "source", format_name)
    image = next(source.rglob("*.jpg"))
    outside = tmp_path / "outside"
    outside.mkdir()
    if kind == "file":
        (outside / "secret.jpg").write_bytes(jpeg())
        image.unlink()
        image.symlink_to(outside / "secret.jpg")
    else:
        shutil.move(image.parent, outside / "images")
        image.parent.symlink_to(outside / "images")
    with pytest.raises(InputError, match="link"):
        through(tmp_path, source, format_name)
    copies = tmp_path / "acquire_benchmark" / "set"
    assert not any(path.read_bytes() == jpeg() for path in copies.rglob("*.jpg"))


@pytest.mark.parametrize(
    ("format_name", "missing"),
    [
        ("psalm", "refcoco/refcoco_val.json"),
        ("reason_seg", "val/a.json"),
        ("refcocom", "annotations/val_part_only.json"),
        ("refcocom", "masks/1.png"),
        ("multi_class", "ade.jsonl"),
        ("refer", "refs(unc).p"),
        ("grefcoco", "instances.json"),
    ],
)
def test_a_data_set_without_its_annotations_is_named(tmp_path: Path, format_name: str, missing: str) -> None:
    source = small_source(tmp_path / "source", format_name)
    (source / missing).unlink()
    with pytest.raises(InputError, match=f"folder `source` has no .* format `{format_name}` needs"):
        through(tmp_path, source, format_name)


@pytest.mark.parametrize("format_name", ["psalm", "refcocom", "refer", "grefcoco", "coco_instances"])
def test_images_of_a_shared_folder_are_taken_where_annotations_name_them(
    tmp_path: Path, format_name: str
) -> None:
    source, shared = small_source(tmp_path / "source", format_name), tmp_path / "train2014"
    shutil.move(source / "images", shared)
    (named,) = (path.name for path in shared.iterdir())
    (shared / "unnamed.jpg").write_bytes(jpeg())
    acquired = context(tmp_path, "acquire_benchmark", {})
    settings = {"format": format_name, "source": "folder", "folder": str(source), "image_folder": str(shared)}
    report = acquire_benchmark.run(
        acquire_benchmark.Config.model_validate({"benchmarks": {"set": settings}}), acquired
    )
    assert [path.name for path in acquired.output.rglob("*.jpg")] == [named]
    assert report.figures["images"] == (2 if format_name == "refcocom" else 1)


def test_names_that_leave_the_shared_folder_are_left_to_be_judged(tmp_path: Path) -> None:
    source, shared = small_source(tmp_path / "source", "psalm"), tmp_path / "train2014"
    shutil.move(source / "images", shared)
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    index = source / "refcoco" / "refcoco_val.json"
    right = json.loads(index.read_text())[0]
    names = ["../secret.jpg", str(tmp_path / "secret.jpg"), "none.jpg", "a" * 5000, "", 7, None, "\ud800"]
    index.write_text(json.dumps([right, *(right | {"image": name} for name in names), "text"]))
    acquired = context(tmp_path, "acquire_benchmark", {})
    settings = {"format": "psalm", "source": "folder", "folder": str(source), "image_folder": str(shared)}
    acquire_benchmark.run(
        acquire_benchmark.Config.model_validate({"benchmarks": {"set": settings}}), acquired
    )
    assert [path.name for path in acquired.output.rglob("*.jpg")] == [right["image"]]


def test_a_shared_folder_is_refused_where_the_format_has_its_own(tmp_path: Path) -> None:
    settings = {"format": "multi_class", "source": "folder", "folder": str(tmp_path / "source")}
    small_source(tmp_path / "source", "multi_class")
    config = acquire_benchmark.Config.model_validate(
        {"benchmarks": {"set": settings | {"image_folder": str(tmp_path)}}}
    )
    with pytest.raises(InputError, match="images of format `multi_class` lie in its own folder"):
        acquire_benchmark.run(config, context(tmp_path, "acquire_benchmark", {}))


def test_what_macos_adds_is_left_out(tmp_path: Path) -> None:
    source = small_source(tmp_path / "source", "reason_seg")
    for name in ("val/._a.jpg", "val/._a.json", "__MACOSX/val/a.json", ".cache/b.jpg"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"\0\5\x16\7")
    report, _ = through(tmp_path, source, "reason_seg")
    assert report.figures["rows_read"] == 1
