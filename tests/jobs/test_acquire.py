"""Acquired data keeps its publisher's format, field by field, and comes out the same twice."""

import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pydantic import ValidationError

from data_contracts.errors import InputError
from jobs import acquire_benchmark, acquire_referring, acquire_sa1b
from jobs.acquisition.encoding import exact_polygons, uncompressed_rle
from jobs.runner.context import StageContext
from jobs.runner.metric_log import MetricLog

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="real sample data (../shared/data) is not here")

DATASETS: dict[str, dict[str, Any]] = {
    "refcoco": {"format": "refer", "splits": {"train": 0.75, "val": 0.25}},
    "grefcoco": {"format": "grefcoco", "expressions": {"per_object": 1, "multiple": 2, "no_target": 2}},
    "alto_pairs": {"format": "alto_jsonl", "splits": {"train": 0.75, "val": 0.25}},
}
IMAGES = 8


def context(output: Path, stage: str, partition: str, items: tuple[str, ...] = ()) -> StageContext:
    output.mkdir(parents=True)
    return StageContext(
        stage=stage,
        partition=partition,
        partition_items=items,
        seed=11,
        inputs={},
        output=output,
        work=output.parent,
        metric_log=MetricLog(output.parent / "curves.jsonl"),
    )


def referring(output: Path, name: str, **changes: Any) -> Path:
    settings = {"images": IMAGES} | DATASETS.get(name, {}) | changes
    config = acquire_referring.Config.model_validate({"datasets": {name: settings}})
    acquire_referring.run(config, context(output, "acquire_referring", name))
    return output


def sa1b(output: Path, *shards: str, **changes: Any) -> Path:
    config = acquire_sa1b.Config.model_validate({"images_per_shard": IMAGES} | changes)
    acquire_sa1b.run(config, context(output, "acquire_sa1b", "batch", shards))
    return output


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pairs(shard: Path) -> dict[str, tuple[bytes, dict[str, Any]]]:
    with tarfile.open(shard) as tar:
        contents = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    stems = {name.removesuffix(".json") for name in contents if name.endswith(".json")}
    assert set(contents) == {stem + end for stem in stems for end in (".jpg", ".json")}
    return {stem: (contents[stem + ".jpg"], json.loads(contents[stem + ".json"])) for stem in stems}


def test_sa1b_shard_has_the_publishers_fields(tmp_path: Path) -> None:
    folder = sa1b(tmp_path / "out", "sa_000003.tar")
    found = pairs(folder / "sa_000003.tar")
    assert len(found) == IMAGES
    for stem, (jpeg, content) in found.items():
        image = Image.open(io.BytesIO(jpeg))
        described = content["image"]
        assert described["file_name"] == f"{stem}.jpg" == f"sa_{described['image_id']}.jpg"
        assert image.size == (described["width"], described["height"])
        for annotation in content["annotations"]:
            mask = coco_mask.decode(annotation["segmentation"])
            assert mask.shape == (image.height, image.width)
            assert annotation["area"] == mask.sum()
            x, y, width, height = coco_mask.toBbox(annotation["segmentation"]).tolist()
            assert annotation["bbox"] == [x, y, width - 1, height - 1]
            ((point_x, point_y),) = annotation["point_coords"]
            assert mask[int(point_y), int(point_x)]
            assert annotation["crop_box"] == [0, 0, *image.size]
            assert 0.88 <= annotation["predicted_iou"] <= 1
            assert 0.95 <= annotation["stability_score"] <= 1
    ids = [annotation["id"] for _, content in found.values() for annotation in content["annotations"]]
    assert len(set(ids)) == len(ids)


def test_shards_share_no_image_and_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    both = sa1b(tmp_path / "both", "sa_000000.tar", "sa_000001.tar")
    first, second = (pairs(both / name) for name in ("sa_000000.tar", "sa_000001.tar"))
    assert set(first).isdisjoint(second)
    assert {jpeg for jpeg, _ in first.values()}.isdisjoint(jpeg for jpeg, _ in second.values())
    alone = sa1b(tmp_path / "alone", "sa_000001.tar")
    assert (alone / "sa_000001.tar").read_bytes() == (both / "sa_000001.tar").read_bytes()


def check_instances(folder: Path) -> COCO:
    coco = COCO(str(folder / "instances.json"))
    kinds = set()
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        kinds.add(type(annotation["segmentation"]))
        assert mask.sum() == annotation["area"]
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        assert annotation["bbox"] == box
    for image in coco.imgs.values():
        assert Image.open(folder / "images" / image["file_name"]).size == (image["width"], image["height"])
        masks = [coco.annToMask(annotation) for annotation in coco.imgToAnns[image["id"]]]
        assert np.sum(masks, axis=0).max() == 1
    assert kinds == {list, dict}, "polygons and run lengths"
    return coco


def test_refer_layout(tmp_path: Path) -> None:
    folder = referring(tmp_path / "refcoco", "refcoco")
    coco = check_instances(folder)
    refs = pickle.loads((folder / "refs(unc).p").read_bytes())
    assert {ref["split"] for ref in refs} == {"train", "val"}
    splits_of_image: dict[int, set[str]] = {}
    for ref in refs:
        annotation = coco.anns[ref["ann_id"]]
        assert (annotation["image_id"], annotation["category_id"]) == (ref["image_id"], ref["category_id"])
        stem, _, record = ref["file_name"].removesuffix(".jpg").rpartition("_")
        assert (stem + ".jpg", record) == (coco.imgs[ref["image_id"]]["file_name"], str(ref["ref_id"]))
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
        assert all(sentence["tokens"] == sentence["sent"].split() for sentence in ref["sentences"])
        splits_of_image.setdefault(ref["image_id"], set()).add(ref["split"])
    assert all(len(splits) == 1 for splits in splits_of_image.values())
    assert len({ref["ref_id"] for ref in refs}) == len(refs)


def test_grefcoco_layout_has_all_three_sorts_of_records(tmp_path: Path) -> None:
    folder = referring(tmp_path / "grefcoco", "grefcoco")
    coco = check_instances(folder)
    records = json.loads((folder / "grefs(unc).json").read_text())
    targets = [0 if record["no_target"] else len(record["ann_id"]) for record in records]
    assert {0, 1, 2} <= set(targets)
    for record in records:
        if record["no_target"]:
            assert (record["ann_id"], record["category_id"]) == ([-1], [-1])
        else:
            annotations = [coco.anns[ann_id] for ann_id in record["ann_id"]]
            assert [annotation["category_id"] for annotation in annotations] == record["category_id"]
            assert {annotation["image_id"] for annotation in annotations} == {record["image_id"]}


def test_alto_layout(tmp_path: Path) -> None:
    folder = referring(tmp_path / "alto", "alto_pairs")
    index = json.loads((folder / "data_seg.json").read_text())
    assert set(index) == {"train", "val"}
    endings = set()
    for entry in index.values():
        annotation = Path(entry["annotation"]).relative_to(entry["root"])
        lines = [json.loads(line) for line in (folder / annotation).read_text().splitlines()]
        assert len(lines) == entry["length"] > 0
        for line in lines:
            mask = Image.open(folder / line["mask"])
            assert (mask.mode, mask.size) == ("L", Image.open(folder / line["image"]).size)
            assert set(np.unique(np.asarray(mask))) == {0, 255}
            question, answer = (turn["value"] for turn in line["conversations"])
            adaptive = question.endswith("</ref> by adaptive length.")
            endings.add(adaptive)
            assert question.startswith("<image>\nSegment <ref>the ")
            tokens = ("<TOK_1>" if adaptive else "<TOK_0>") * 32
            assert answer == f"The mask appears at <ALTo_Start>{tokens}<ALTo_End>."
    assert endings == {True, False}


@pytest.mark.parametrize("name", DATASETS)
def test_two_runs_are_equal_byte_for_byte(tmp_path: Path, name: str) -> None:
    first, second = (files(referring(tmp_path / run / name, name)) for run in "ab")
    assert first == second
    assert "pictures/samples.png" in first
    assert json.loads((tmp_path / "a" / name / "dataset.json").read_text()) == {
        "format": DATASETS[name]["format"],
        "name": name,
        "source": "sample",
        "own_image_ids": True,
    }


def test_sa1b_is_equal_byte_for_byte(tmp_path: Path) -> None:
    assert files(sa1b(tmp_path / "a" / "out", "sa_000000.tar")) == files(
        sa1b(tmp_path / "b" / "out", "sa_000000.tar")
    )


def test_benchmark_holds_no_training_image(tmp_path: Path) -> None:
    settings = {"images": IMAGES} | DATASETS["grefcoco"] | {"splits": {"val": 1}}
    config = acquire_benchmark.Config.model_validate({"benchmarks": {"grefcoco": settings}})
    held_out = tmp_path / "benchmark"
    report = acquire_benchmark.run(config, context(held_out, "acquire_benchmark", "grefcoco"))
    training = referring(tmp_path / "training", "grefcoco")
    hashes = [set(files(folder / "images").values()) for folder in (held_out, training)]
    assert len(hashes[0]) == IMAGES
    assert hashes[0].isdisjoint(hashes[1])
    assert report.figures["images"] == IMAGES
    assert report.figures["multiple_target_expressions"] > 0  # type: ignore[operator]
    assert report.figures["no_target_expressions"] > 0  # type: ignore[operator]


def test_uncompressed_run_lengths_and_polygons_are_exact() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((9, 13)) < rng.uniform(0.05, 0.95)
        encoded = uncompressed_rle(mask)
        assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects(encoded, 9, 13)), mask)
    holed = np.ones((9, 9), dtype=bool)
    holed[4, 4] = False
    assert exact_polygons(holed) is None
    assert exact_polygons(np.pad(np.ones((3, 4), dtype=bool), 2)) is not None


# --- from a folder


@pytest.mark.parametrize("name", DATASETS)
def test_folder_in_a_publishers_format_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    source = referring(tmp_path / "source", name)
    format_ = DATASETS[name]["format"]
    taken = referring(tmp_path / "taken", "mine", format=format_, source="folder", folder=str(source))
    assert json.loads((taken / "dataset.json").read_text())["format"] == format_
    expected, copied = files(source), files(taken)
    assert {name: copied[name] for name in copied if name != "dataset.json"} == {
        name: expected[name] for name in expected if name != "dataset.json"
    }


def test_shards_are_copied_by_name(tmp_path: Path) -> None:
    source = sa1b(tmp_path / "source", "sa_000000.tar", "sa_000001.tar")
    taken = sa1b(tmp_path / "taken", "sa_000001.tar", source="folder", folder=str(source))
    assert [path.name for path in taken.glob("*.tar")] == ["sa_000001.tar"]
    assert (taken / "sa_000001.tar").read_bytes() == (source / "sa_000001.tar").read_bytes()
    with pytest.raises(InputError, match=r"sa_000007\.tar"):
        sa1b(tmp_path / "missing", "sa_000007.tar", source="folder", folder=str(source))


@needs_shared
def test_real_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    loose = sa1b(tmp_path / "sa1b", "sa_000000.tar", source="folder", folder=str(SHARED / "sa1b"))
    assert set(files(loose)) == {"dataset.json", *files(SHARED / "sa1b")}
    for name, format_ in (("alto_pairs", "alto_jsonl"), ("coco_instances", "coco_instances")):
        taken = referring(tmp_path / name, "real", format=format_, source="folder", folder=str(SHARED / name))
        assert set(files(taken)) == {"dataset.json", *files(SHARED / name)}


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    source = referring(tmp_path / "source", "refcoco")
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"not yours")
    (source / "images" / "link.jpg").symlink_to(secret)
    with pytest.raises(InputError, match=r"images/link\.jpg.*leads out"):
        referring(tmp_path / "taken", "mine", format="refer", source="folder", folder=str(source))


def test_linked_folders_are_refused(tmp_path: Path) -> None:
    source = referring(tmp_path / "source", "refcoco")
    (source / "images").rename(tmp_path / "elsewhere")
    (source / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="linked folder"):
        referring(tmp_path / "taken", "mine", format="refer", source="folder", folder=str(source))


@pytest.mark.parametrize(
    ("format_", "missing", "message"),
    [
        ("refer", "refs(unc).p", r"refs\(\*\)\.p"),
        ("refer", "instances.json", r"instances\.json"),
        ("grefcoco", "grefs(unc).json", r"grefs"),
        ("alto_jsonl", "data_seg.json", r"data_seg\.json"),
    ],
)
def test_missing_file_is_named(tmp_path: Path, format_: str, missing: str, message: str) -> None:
    name = next(name for name, settings in DATASETS.items() if settings["format"] == format_)
    source = referring(tmp_path / "source", name)
    (source / missing).unlink()
    with pytest.raises(InputError, match=message):
        referring(tmp_path / "taken", "mine", format=format_, source="folder", folder=str(source))


def test_missing_folder_and_unknown_partition_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no_such_folder"):
        referring(tmp_path / "a", "mine", format="refer", source="folder", folder="no_such_folder")
    config = acquire_referring.Config.model_validate({"datasets": {}})
    with pytest.raises(InputError, match=r"acquire_referring\.datasets .*`refcoco`"):
        acquire_referring.run(config, context(tmp_path / "b", "acquire_referring", "refcoco"))
    with pytest.raises(InputError, match="shard name"):
        sa1b(tmp_path / "c", "../sa_000000.tar")


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "refer", "image": 3},
        {"format": "pascal"},
        {"format": "refer", "source": "folder"},
        {"format": "refer", "folder": "data"},
        {"format": "refer", "splits": {"train": 0.5, "val": 0.4}},
        {"format": "refer", "expressions": {"no_target": 1}},
        {"format": "coco_instances"},
    ],
)
def test_inconsistent_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        acquire_referring.Config.model_validate({"datasets": {"refcoco": wrong}})
