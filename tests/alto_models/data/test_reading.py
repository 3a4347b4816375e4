"""Crops for training and whole squares: what is drawn, that it is reproducible, and the way back."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from alto_models import masks as mask_arithmetic
from alto_models.data.crops import CropReader, CropSettings, croppable_rows, draw_crop
from alto_models.data.masks import ImageWithMasks, MaskImages
from alto_models.data.referring import ReferringImages
from alto_models.data.shards import PictureCache, decode_image
from alto_models.data.squares import (
    Square,
    cut_file,
    cut_image,
    cut_pixels,
    reduction,
    restore_whole,
    square_pad_whole,
    whole_square,
)
from alto_models.data.workers import prefetched
from data_contracts.errors import InputError
from data_contracts.schemas import MASKS_SCHEMA, REFERRING_SCHEMA

HEIGHT, WIDTH = 60, 90
RECTANGLES = [(5, 5, 30, 20), (50, 10, 25, 40), (2, 40, 20, 15)]  # x, y, width, height
SETTINGS = CropSettings(image_size=32, mask_size=16, masks_per_crop=3)


def rectangle(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def picture(number: int) -> np.ndarray:
    """Every rectangle in a colour of its own, on black."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for channel, sides in enumerate(RECTANGLES):
        image[rectangle(*sides) > 0, channel] = 255 - number
    return image


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def image_row(number: int, split: str) -> dict[str, Any]:
    return {
        "image_id": f"image-{number}",
        "source": "toy",
        "split": split,
        "width": WIDTH,
        "height": HEIGHT,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_sha256": "",
        "image": png(picture(number)),
    }


def mask_fields(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_arithmetic.encode(mask)
    runs = mask_arithmetic.parse_counts(rle.counts)
    box = list(mask_arithmetic.box(runs, HEIGHT))
    return {"counts": rle.counts, "box": box, "area": mask_arithmetic.area(runs)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    for shard in range(2):
        rows = []
        for number in range(5 * shard, 5 * shard + 5):
            masks = [
                mask_fields(rectangle(*sides)) | {"mask_id": f"{number}-{i}", "boundary_length": 1}
                for i, sides in enumerate(RECTANGLES)
            ]
            row = image_row(number, "held_out" if number == 4 else "train")
            share = max(mask["area"] for mask in masks) / max(HEIGHT, WIDTH) ** 2
            rows.append(row | {"masks": masks, "largest_mask_share": share})
        path = folder / f"batch_{shard}" / "shard-00000.parquet"
        path.parent.mkdir()
        pq.write_table(pa.Table.from_pylist(rows, schema=MASKS_SCHEMA), path)
    return folder


def crops(
    folder: Path, settings: CropSettings, seed: int, per_step: int = 4, split: str = "train"
) -> CropReader:
    return CropReader(croppable_rows(folder, split, settings), settings, seed, per_step)


def test_images_of_a_split_come_from_all_partitions(folder: Path) -> None:
    images = MaskImages(folder, "train")
    assert [image.image_id for image in images] == [f"image-{n}" for n in (0, 1, 2, 3, 5, 6, 7, 8, 9)]
    np.testing.assert_array_equal(images[5].image, picture(6))
    assert images[5].masks[1].box == RECTANGLES[1]
    np.testing.assert_array_equal(mask_arithmetic.decode(images[5].masks[1].rle), rectangle(*RECTANGLES[1]))
    assert len(MaskImages(folder)) == 10
    assert len(MaskImages(folder / "batch_1", "train")) == 5


def test_what_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image of split 'testA'"):
        MaskImages(folder, "testA")
    with pytest.raises(InputError, match="no shard"):
        MaskImages(tmp_path)
    with pytest.raises(InputError, match="prepare stage again"):
        ReferringImages(folder)


def test_a_crop_depends_on_seed_and_position_only(folder: Path) -> None:
    reader, resumed = crops(folder, SETTINGS, seed=3), crops(folder, SETTINGS, seed=3)
    ahead = [reader.batch(range(4 * step, 4 * step + 4)) for step in range(6)]
    again = resumed.batch(range(20, 24))
    assert again.image_ids == ahead[5].image_ids
    np.testing.assert_array_equal(again.images, ahead[5].images)
    np.testing.assert_array_equal(again.masks, ahead[5].masks)
    other = crops(folder, SETTINGS, seed=4).batch(range(20, 24))
    assert not np.array_equal(again.images, other.images)


def test_each_epoch_shows_every_image_once_in_its_own_order(folder: Path) -> None:
    reader = crops(folder, SETTINGS, seed=0)
    epochs = [[reader.crop(e * len(reader) + i).image_id for i in range(len(reader))] for e in range(3)]
    assert all(sorted(epoch) == sorted(set(epochs[0])) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_masks_lie_on_the_pixels_of_their_objects(folder: Path) -> None:
    settings = CropSettings(image_size=48, mask_size=48, masks_per_crop=4, max_merged=3)
    reader = crops(folder, settings, seed=1)
    for position in range(40):
        crop = reader.crop(position)
        assert crop.image.shape == (3, 48, 48)
        assert crop.image.dtype == np.uint8
        assert crop.masks.dtype == np.float32
        assert set(np.unique(crop.masks)) <= {0.0, 1.0}
        assert crop.masks[0].any()
        colours = crop.image > 127
        for mask in crop.masks:
            # The merged mask is the union of whole objects: one channel each.
            chosen = [channel for channel in colours if (channel & (mask > 0)).any()]
            if chosen:
                union = np.logical_or.reduce(chosen)
                assert (union != (mask > 0)).mean() < 0.06  # antialiasing of the edges


def test_crops_keep_to_the_recipe(folder: Path) -> None:
    image = MaskImages(folder, "train")[0]
    rng = np.random.default_rng(0)
    settings = CropSettings(image_size=8, mask_size=8, max_merged=1, min_box_ratio=4, max_box_ratio=5)
    for _ in range(100):
        square = draw_crop(image, settings, rng).square
        held = [
            mask.box
            for mask in image.masks
            if square.left <= mask.box.x
            and square.top <= mask.box.y
            and mask.box.x + mask.box.width <= square.left + square.side
            and mask.box.y + mask.box.height <= square.top + square.side
        ]
        assert held
        assert any(square.side >= min(2 * max(box.width, box.height), WIDTH) for box in held)
        assert square.side <= WIDTH
        assert square.left >= 0
        assert square.top >= 0


def test_whole_images_come_as_often_as_asked(folder: Path) -> None:
    for asked, least, most in [(0.0, 0, 0), (0.5, 0.4, 0.6), (1.0, 1, 1)]:
        settings = CropSettings(
            image_size=8, mask_size=8, max_merged=1, max_box_ratio=4.0, whole_image_share=asked
        )
        reader = crops(folder, settings, seed=0)
        share = np.mean([reader.crop(i).square == (0, 0, WIDTH) for i in range(200)])
        assert least <= share <= most


def test_small_masks_are_not_drawn(folder: Path) -> None:
    largest = CropSettings(image_size=8, mask_size=8, min_area_share=900 / WIDTH**2)
    assert len(crops(folder, largest, seed=0)) == 9
    with pytest.raises(InputError, match="largest_mask_share above 0.9: lower min_area_share"):
        croppable_rows(folder, "train", CropSettings(min_area_share=0.9))


def test_whole_square_and_back(folder: Path) -> None:
    image = MaskImages(folder, "train")[0]
    rles = [mask.rle for mask in image.masks]
    pixels, masks = square_pad_whole(image.image, rles, WIDTH, WIDTH)
    assert pixels.shape == (3, WIDTH, WIDTH)
    assert (pixels[:, HEIGHT:] == 0).all()
    assert (masks[:, HEIGHT:] == 0).all()
    for mask, rle in zip(masks, rles, strict=True):
        np.testing.assert_array_equal(restore_whole(mask, HEIGHT, WIDTH), mask_arithmetic.decode(rle))
    assert _mean_iou(image, mask_size=30, supersample=1) > 0.8
    empty = square_pad_whole(image.image, [], 30, 30)[1]
    assert empty.shape == (0, 30, 30)


def _mean_iou(image: ImageWithMasks, mask_size: int, supersample: int) -> float:
    """Of the masks with themselves, after they were made small and large again."""
    rles = [mask.rle for mask in image.masks]
    small = square_pad_whole(image.image, rles, 8, mask_size, supersample)[1]
    restored = [restore_whole(mask, HEIGHT, WIDTH) for mask in small]
    pairs = [(mask, mask_arithmetic.decode(rle)) for mask, rle in zip(restored, rles, strict=True)]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))


def test_coverage_keeps_more_of_a_mask_than_its_binary_picture(folder: Path) -> None:
    image = MaskImages(folder, "train")[0]
    soft = square_pad_whole(image.image, [image.masks[0].rle], 8, 20, supersample=4)[1]
    assert 0 < soft[(soft > 0) & (soft < 1)].size < 0.2 * soft.size
    assert soft.sum() * (WIDTH / 20) ** 2 == pytest.approx(image.masks[0].area, rel=0.03)
    assert _mean_iou(image, 20, supersample=4) > _mean_iou(image, 20, supersample=1) + 0.03
    merged = crops(folder, CropSettings(image_size=8, mask_size=20, supersample=4), seed=0).crop(3)
    assert 0 <= merged.masks.min() < merged.masks.max() <= 1


def test_tall_images_are_padded_at_the_right() -> None:
    tall = np.full((40, 10, 3), 255, np.uint8)
    pixels = cut_image(tall, whole_square(40, 10), 40)
    assert (pixels[:, :, :10] == 1).all()
    assert (pixels[:, :, 10:] == 0).all()
    assert restore_whole(np.ones((8, 8), np.float32), 40, 10).shape == (40, 10)


REAL_PHOTOS = Path(__file__).resolve().parents[4] / "shared" / "data" / "sa1b"


@pytest.mark.skipif(not REAL_PHOTOS.exists(), reason="needs the photos of ../shared/data/sa1b")
@pytest.mark.parametrize(
    ("side", "size", "part"), [(2250, 1024, 2), (1280, 512, 2), (1100, 256, 4), (1037, 128, 4)]
)
def test_a_jpeg_decoded_at_a_part_of_its_size(side: int, size: int, part: int) -> None:
    """Tolerances of `cut_file`: 2 levels in the mean, 20 for all but a hundredth of the pixels."""
    for path in sorted(REAL_PHOTOS.glob("*.jpg")):
        data = path.read_bytes()
        whole = decode_image(data)
        assert reduction(side, size) == part
        for left, top in ((0, 0), (48, 96), (64, 520)):
            square = Square(left, top, side)
            apart = np.abs(cut_file(data, square, size).astype(int) - cut_pixels(whole, square, size))
            assert 0 < apart.mean() < 2
            assert np.percentile(apart, 99) < 20


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("square", [(0, 0, 60), (10, 4, 31), (-5, -20, 97), (70, 50, 40)])
def test_files_are_cut_as_pixels_are(kind: str, square: tuple[int, int, int]) -> None:
    """With squares that reach beyond the image, and against Pillow's resizing, which rounds otherwise."""
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(file, kind, quality=95)
    whole, place = decode_image(file.getvalue()), Square(*square)
    for size in (64, square[2]):
        cut = cut_file(file.getvalue(), place, size)
        np.testing.assert_array_equal(cut, cut_pixels(whole, place, size))
        padded = Image.fromarray(mask_arithmetic.crop_square(whole, *place))
        resized = np.asarray(padded.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(cut.astype(int) - resized).max() <= 1


def test_picture_cache_keeps_to_its_size() -> None:
    cache = PictureCache(capacity_bytes=2 * HEIGHT * WIDTH * 3)
    for number in (0, 1, 2, 0):
        np.testing.assert_array_equal(cache.get(number, png(picture(number))), picture(number))
    assert cache.get(0, b"not read again") is cache.get(0, b"")


def test_prefetching_keeps_order_and_passes_errors_on() -> None:
    assert list(prefetched(lambda step: step * step, range(3, 9))) == [9, 16, 25, 36, 49, 64]

    def fails_at_two(step: int) -> int:
        if step == 2:
            raise InputError("row 2")
        return step

    batches = prefetched(fails_at_two, range(5))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(InputError, match="row 2"):
        next(batches)


def test_referring_records_come_as_stored(tmp_path: Path) -> None:
    instances = [
        mask_fields(rectangle(*sides)) | {"instance_id": str(i), "category": "box"}
        for i, sides in enumerate(RECTANGLES[:2])
    ]
    union = mask_fields(rectangle(*RECTANGLES[0]) | rectangle(*RECTANGLES[1]))
    records = [
        {"record_id": "1", "expressions": ["both boxes", "two boxes"], "no_target": False}
        | {"counts": union["counts"], "area": union["area"], "boundary_length": 7, "instances": instances},
        {"record_id": "2", "expressions": ["a cat"], "no_target": True, "counts": None}
        | {"area": 0, "boundary_length": 0, "instances": []},
    ]
    rows = [image_row(0, "train") | {"records": records}, image_row(1, "val") | {"records": []}]
    pq.write_table(pa.Table.from_pylist(rows, schema=REFERRING_SCHEMA), tmp_path / "shard-00000.parquet")
    images = ReferringImages(tmp_path, "train")
    assert len(images) == 1
    both, none = images[0].records
    assert both.expressions == ("both boxes", "two boxes")
    assert both.area == sum(instance.area for instance in both.instances)
    assert [instance.box for instance in both.instances] == RECTANGLES[:2]
    assert none.no_target
    assert none.rle is None
    assert images.records(0) == images[0].records
