"""Images as they come: which are refused and why, and with which pixels the others are stored."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from pydantic import ValidationError

from alto_models import masks as mask_arithmetic
from alto_models.data.masks import MaskImages
from alto_models.data.referring import ReferringImages
from alto_models.data.shards import decode_image
from jobs.formats.raw import ProblemError, RawImage, RawMask, RawRow
from jobs.preparation.measuring import Convention, MeasuredImage, image_size, measure_image
from jobs.preparation.prepare import prepare
from jobs.preparation.referring import REFERRING
from jobs.preparation.rows import geometry, image_fields
from jobs.preparation.sa1b import SA1B
from jobs.preparation.settings import ContractConfig, ImagesConfig
from jobs.preparation.storing import stored_size, with_stored_form
from tests.jobs.raw_data import (
    HEIGHT,
    WIDTH,
    acquired,
    annotation,
    coco_annotation,
    context,
    rle,
    sa1b_json,
    write_coco,
)

MAX_PIXELS = 100_000
random = np.random.default_rng(3)
COARSE = Image.fromarray(random.integers(0, 256, (5, 7, 3), np.uint8))
PICTURE = COARSE.resize((150, 90), Image.Resampling.BICUBIC)


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return saved(PICTURE, "JPEG", exif=exif)


def sixteen_bit() -> Image.Image:
    return Image.fromarray((np.arange(90 * 150).reshape(90, 150) * 4).astype(np.uint16))


def transparent() -> Image.Image:
    image = PICTURE.convert("RGBA")
    image.putalpha(128)
    return image


USABLE: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: saved(PICTURE, "JPEG"),
    "progressive": lambda: saved(PICTURE, "JPEG", progressive=True),
    "grey": lambda: saved(PICTURE.convert("L"), "JPEG"),
    "cmyk": lambda: saved(PICTURE.convert("CMYK"), "JPEG"),
    "rotated": rotated,
    "png": lambda: saved(PICTURE, "PNG"),
    "palette": lambda: saved(PICTURE.quantize(16), "PNG"),
    "transparent": lambda: saved(transparent(), "PNG"),
    "transparent palette": lambda: saved(PICTURE.quantize(16), "PNG", transparency=3),
    "one bit": lambda: saved(PICTURE.convert("1"), "PNG"),
}
REFUSED: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "empty": (lambda: b"", "image_decodes", "0 bytes"),
    "no image": (lambda: b"<html>not found</html>", "image_decodes", "cannot identify"),
    "gif": (lambda: saved(PICTURE, "GIF"), "image_decodes", "cannot identify"),
    "tiff": (lambda: saved(PICTURE, "TIFF"), "image_decodes", "cannot identify"),
    "16 bit": (lambda: saved(sixteen_bit(), "PNG"), "image_decodes", "I;16"),
    "animated": (
        lambda: saved(PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(90)]),
        "image_decodes",
        "animation",
    ),
    "large": (lambda: saved(Image.new("L", (1000, 101)), "PNG"), "image_pixel_limit", "1000 x 101"),
    "bomb": (lambda: saved(Image.new("1", (30_000, 30_000)), "PNG"), "image_pixel_limit", "900000000"),
    "truncated": (lambda: saved(PICTURE, "JPEG")[:-300], "image_decodes", "truncated"),
    "truncated png": (lambda: saved(PICTURE, "PNG")[:-300], "image_decodes", "truncated"),
}


def measured(data: bytes, masks: tuple[np.ndarray, ...] = ()) -> MeasuredImage:
    rows = tuple(
        RawRow(row_id=str(n), masks=(RawMask(mask_id=str(n), segmentation=rle(mask)),))
        for n, mask in enumerate(masks)
    )
    raw = RawImage(image_id="1", source_file="1.jpg", rows=rows, data=data)
    return measure_image(raw, Convention(), MAX_PIXELS)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_usable_image_says_why(name: str) -> None:
    make, rule, part = REFUSED[name]
    with pytest.raises(ProblemError) as caught:
        image_size(make(), MAX_PIXELS)
    assert caught.value.problem.rule == rule
    assert part in caught.value.problem.value


@pytest.mark.parametrize("name", USABLE)
def test_usable_images_are_stored_as_they_are_or_with_the_same_pixels(name: str) -> None:
    data = USABLE[name]()
    image = measured(data)
    assert image.problem is None
    assert image_fields(image, "set", "train")["image"] == data
    fields = image_fields(with_stored_form(image, ImagesConfig(encoding="png")), "set", "train")
    np.testing.assert_array_equal(decode_image(fields["image"]), decode_image(data))
    with Image.open(io.BytesIO(fields["image"])) as stored:
        assert stored.mode == "RGB"
        assert not stored.getexif()
    original = image_fields(image, "set", "train")
    assert fields | {"image": b""} == original | {"image": b""}
    assert (fields["width"], fields["height"]) == (150, 90)


def decodes_in_full(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("progressive", [False, True])
def test_decoding_small_finds_every_truncation_that_full_decoding_finds(progressive: bool) -> None:
    data = saved(PICTURE, "JPEG", progressive=progressive)

    @settings(max_examples=80, deadline=None)
    @given(cut=st.integers(0, len(data)))
    def hold(cut: int) -> None:
        image = measured(data[:cut])
        assert (image.size == (150, 90)) == decodes_in_full(data[:cut])
        assert image.problem is None or image.problem.rule == "image_decodes"

    hold()


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(USABLE)),
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=40)), max_size=4),
)
def test_any_damage_is_a_verdict(name: str, damage: list[tuple[int, bytes]]) -> None:
    data = bytearray(USABLE[name]())
    for place, garbage in damage:
        place %= len(data)
        data[place : place + len(garbage)] = garbage
    image = with_stored_form(measured(bytes(data)), ImagesConfig(encoding="jpeg", max_side=64))
    assert (image.stored is None) == (image.problem is not None)
    if image.problem is not None:
        assert image.problem.rule in ("image_decodes", "image_pixel_limit")
        assert " at 0x" not in image.problem.value


@pytest.mark.parametrize("encoding", ["jpeg", "webp", "png"])
def test_masks_have_the_size_of_the_stored_image(encoding: Any) -> None:
    mask = np.zeros((90, 150), np.uint8)
    mask[20:60, 30:100] = 1
    image = measured(saved(PICTURE, "PNG"), (mask,))
    small = with_stored_form(image, ImagesConfig(encoding=encoding, max_side=50))
    fields = image_fields(small, "set", "train")
    assert (fields["width"], fields["height"]) == (50, 30)
    assert (fields["original_width"], fields["original_height"]) == (150, 90)
    assert fields["image_sha256"] == image_fields(image, "set", "train")["image_sha256"]
    with Image.open(io.BytesIO(fields["image"])) as stored:
        assert stored.format == encoding.upper()
        assert stored.size == (50, 30)
        expected = PICTURE.resize((50, 30), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(stored.convert("RGB"), int) - np.asarray(expected, int)).mean() < 8
    found = geometry(small.rows[0].masks[0])
    decoded = mask_arithmetic.decode(mask_arithmetic.Rle(30, 50, found["counts"]))
    np.testing.assert_array_equal(decoded, mask_arithmetic.resize_nearest(mask, 30, 50))
    assert found["area"] == decoded.sum()
    assert found["box"] == [10, 7, 23, 13]


@pytest.mark.parametrize(
    ("size", "max_side", "stored"),
    [
        ((150, 90), None, (150, 90)),
        ((150, 90), 150, (150, 90)),
        ((90, 150), 50, (30, 50)),
        ((9000, 3), 16, (16, 1)),
    ],
)
def test_images_shrink_only(size: tuple[int, int], max_side: int | None, stored: tuple[int, int]) -> None:
    assert stored_size(size, max_side) == stored


def test_keeping_files_and_shrinking_them_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="max_side"):
        ImagesConfig(max_side=512)


def test_a_mask_that_vanishes_in_scaling_is_quarantined(tmp_path: Path) -> None:
    path = acquired(tmp_path, "batch", "sa1b")
    dot = np.zeros((HEIGHT, WIDTH), np.uint8)
    dot[0, 0] = 1
    tiny = annotation(2, segmentation=rle(dot), bbox=[0.0, 0.0, 0.0, 0.0], area=1)
    (path / "sa_1.jpg").write_bytes(saved(PICTURE.resize((WIDTH, HEIGHT)), "JPEG"))
    (path / "sa_1.json").write_bytes(sa1b_json(1, [annotation(1), tiny]))
    limits, smaller = ContractConfig(max_quarantined_share=1), ImagesConfig(encoding="webp", max_side=20)
    given = context(tmp_path, "prepare_sa1b", "batch")
    report = prepare(SA1B, path, 0.0, limits, given, images=smaller)
    assert report.figures["quarantined_mask_survives_scaling"] == 1
    assert report.figures["rows_accepted"] == 1
    assert all(check.passed for check in report.checks)
    (image,) = MaskImages(given.output)
    assert image.image.shape == (12, 20, 3)
    assert [mask_arithmetic.decode(mask.rle).shape for mask in image.masks] == [(12, 20)]


def test_records_of_smaller_images_keep_the_union_of_their_instances(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "coco_instances")
    write_coco(path, [1], [coco_annotation(1, 1), coco_annotation(2, 1)])
    given = context(tmp_path, "prepare_referring", "set")
    smaller = ImagesConfig(encoding="jpeg", max_side=20)
    report = prepare(REFERRING, path, 0.0, ContractConfig(), given, images=smaller)
    assert report.figures["rows_quarantined"] == 0
    (image,) = ReferringImages(given.output, None)
    assert image.image.shape == (12, 20, 3)
    (record,) = image.records
    assert record.rle is not None
    union = mask_arithmetic.decode(record.rle)
    assert union.shape == (12, 20)
    assert union.sum() == record.area == record.instances[0].area
