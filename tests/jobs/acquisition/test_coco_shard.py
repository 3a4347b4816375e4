"""A data set in COCO layout becomes an SA-1B shard that the stages take without a complaint."""

import json
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO

from jobs import acquire_sa1b, prepare_sa1b
from jobs.acquisition.coco_shard import main
from jobs.acquisition.encoding import uncompressed_rle
from jobs.formats.raw import RawMask
from jobs.formats.sa1b import open_sa1b
from tests.jobs import raw_data
from tests.jobs.acquisition.conftest import ContextOf
from tests.jobs.raw_data import HEIGHT, WIDTH, box_mask, coco_annotation, write_coco

SHARED = Path(__file__).parents[4] / "shared" / "data" / "coco_instances"
SHARD = "sa_100000.tar"
MASK = box_mask(3, 4, 10, 6)
OTHER = box_mask(20, 10, 5, 8)


def ring() -> np.ndarray:
    return box_mask(10, 5, 12, 12) - box_mask(13, 8, 6, 6)


def converted(folder: Path, annotations: list[Any], ids: tuple[int, ...] = (7, 42), *options: str) -> Path:
    """The shard of a data set with these annotations."""
    source = folder / "source"
    source.mkdir()
    write_coco(source, list(ids), annotations)
    shard = folder / SHARD
    main([str(source / "instances.json"), str(source / "images"), str(shard), *options])
    return shard


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def decoded(segmentation: Any) -> np.ndarray:
    return np.asarray(coco.decode(segmentation))


def test_every_kind_of_segmentation_keeps_its_pixels(tmp_path: Path) -> None:
    polygon = [[2.5, 3.5, 12.5, 3.5, 12.5, 9.5]]
    annotations = [
        coco_annotation(1, 42, segmentation=raw_data.rle(ring())),
        coco_annotation(2, 42, segmentation=uncompressed_rle(OTHER)),
        coco_annotation(3, 7, segmentation=polygon),
    ]
    found = members(converted(tmp_path, annotations))
    assert list(found) == ["sa_7.jpg", "sa_7.json", "sa_42.jpg", "sa_42.json"]
    assert found["sa_42.jpg"] == (tmp_path / "source" / "images" / f"{42:012d}.jpg").read_bytes()
    content = json.loads(found["sa_42.json"])
    assert content["image"] == {
        "image_id": 42,
        "width": WIDTH,
        "height": HEIGHT,
        "file_name": "sa_42.jpg",
    }
    first, second = content["annotations"]
    np.testing.assert_array_equal(decoded(first["segmentation"]), ring())
    np.testing.assert_array_equal(decoded(second["segmentation"]), OTHER)
    assert (second["id"], second["area"], second["bbox"]) == (2, 40, [20, 10, 4, 7])
    drawn = json.loads(found["sa_7.json"])["annotations"][0]["segmentation"]
    expected = coco.merge(coco.frPyObjects(polygon, HEIGHT, WIDTH))
    np.testing.assert_array_equal(decoded(drawn), decoded(expected))


def test_crowds_and_what_is_no_mask_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = [
        coco_annotation(1, 42),
        coco_annotation(2, 42, iscrowd=1),
        coco_annotation(3, 42, segmentation=[[1, 1, 2, 2]]),
        coco_annotation(4, 42, segmentation=raw_data.rle(np.zeros_like(MASK))),
        coco_annotation(5, 42, segmentation=raw_data.rle(MASK.T)),
        coco_annotation(6, 7, iscrowd=1),
    ]
    found = members(converted(tmp_path, annotations))
    assert list(found) == ["sa_42.jpg", "sa_42.json"]
    assert [each["id"] for each in json.loads(found["sa_42.json"])["annotations"]] == [1]
    out = capsys.readouterr().out
    assert "1 images, 1 masks" in out
    assert "2 crowd, 1 mask_fits_image (first: annotation 5, 24 x 40" in out
    assert "1 mask_not_empty (first: annotation 4" in out
    assert "1 mask_readable (first: annotation 3, a polygon needs 3 points" in out
    assert "no mask remains: 1" in out


def test_the_same_input_gives_the_same_bytes_and_nothing_else(tmp_path: Path) -> None:
    shards = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shards.append(converted(tmp_path / name, [coco_annotation(1, 42), coco_annotation(2, 7)]))
    assert shards[0].read_bytes() == shards[1].read_bytes()
    assert sorted(path.name for path in shards[0].parent.iterdir()) == [SHARD, "source"]


def test_stages_take_the_shard(tmp_path: Path, context_of: ContextOf) -> None:
    annotations = [coco_annotation(n, image) for n, image in enumerate((7, 7, 42), start=1)]
    annotations[0]["segmentation"] = raw_data.rle(ring())
    converted(tmp_path, annotations, (7, 42), "--id-offset", "1000")
    acquiring = context_of(SHARD)
    acquire_sa1b.run(acquire_sa1b.Config(source="folder", folder=str(tmp_path)), acquiring)
    preparing = raw_data.context(tmp_path, "prepare_sa1b", "batch_000")
    preparing.inputs["acquire_sa1b"].mkdir()
    acquiring.output.rename(preparing.inputs["acquire_sa1b"] / "batch_000")
    report = prepare_sa1b.run(prepare_sa1b.Config(held_out_share=0.0), preparing)
    assert all(check.passed for check in report.checks), report.checks
    assert report.figures["rows_accepted"] == 3
    table = pq.read_table(preparing.output / "shard-00000.parquet")
    assert table["image_id"].to_pylist() == ["1007", "1042"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content["images"].append(content["images"][0]), "image id '7#2'.*twice"),
        (lambda content: content["annotations"].append(content["annotations"][0]), "annotation id '1#1'"),
        (lambda content: content["images"][1].update(id="a/b"), "image id 'a/b'"),
        (lambda content: content["images"][0].update(file_name="../x.jpg"), "image 7: '../x.jpg'"),
        (lambda content: content["images"][0].update(file_name="gone.jpg"), "image 7: no file gone.jpg"),
        (lambda content: content["annotations"][0].update(image_id=8), "annotation 1 is of image 8"),
        (lambda content: content["annotations"][0].update(iscrowd=1), "no mask to write; .* 1 crowd"),
        (lambda content: content.pop("categories"), "no list 'categories'"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, message: str
) -> None:
    write_coco(tmp_path, [7, 42], [coco_annotation(1, 42)])
    path = tmp_path / "instances.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as stopped:
        main([str(path), str(tmp_path), str(tmp_path / SHARD)])
    assert stopped.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert re.search(message, error[0])
    assert not list(tmp_path.glob("*.tar*"))


@pytest.mark.parametrize(
    ("name", "message"), [("real.tar", "not a shard name"), ("no/" + SHARD, "no such folder")]
)
def test_wrong_output_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "instances.json"), str(tmp_path), str(tmp_path / name)])
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="real sample data (../shared/data) is not here")
def test_real_photos_keep_their_masks(tmp_path: Path) -> None:
    main([str(SHARED / "instances.json"), str(SHARED), str(tmp_path / SHARD)])
    reference = COCO(SHARED / "instances.json")
    expected = [each for each in reference.dataset["annotations"] if not each["iscrowd"]]
    dataset = open_sa1b(tmp_path)
    masks: dict[str, RawMask] = {}
    for image in dataset.images:
        assert image.problem is None
        stored = reference.imgs[int(image.image_id)]
        assert image.data == (SHARED / "images" / stored["file_name"]).read_bytes()
        masks |= {row.masks[0].mask_id: row.masks[0] for row in image.rows}
    assert Counter(masks.keys()) == Counter(str(each["id"]) for each in expected)
    for each in expected[::20]:
        mask = masks[str(each["id"])]
        assert mask.stated_area == each["area"]
        np.testing.assert_array_equal(decoded(mask.segmentation), reference.annToMask(each))
