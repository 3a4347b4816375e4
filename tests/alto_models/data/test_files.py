"""Mask and image files of people: what is read as which mask, and what is refused in one clear line."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alto_models.data.files import MAX_SIDE, binary, encode_mask, read_image, read_mask
from data_contracts.errors import InputError

SQUARE = np.zeros((20, 30), np.bool_)
SQUARE[5:12, 8:20] = True


def saved(path: Path, image: Image.Image) -> Path:
    image.save(path, "PNG")
    return path


def palette(levels: np.ndarray) -> Image.Image:
    """Indices 0 and 1, the colours of both bright."""
    image = Image.fromarray(levels.astype(np.uint8)).convert("P")
    image.putdata(levels.astype(np.uint8).ravel().tolist())
    image.putpalette([250, 250, 200, 255, 0, 0])
    return image


def grey(dtype: type, value: int) -> Image.Image:
    return Image.fromarray(SQUARE.astype(dtype) * dtype(value))


FORMS = {
    "grey 0 and 255": grey(np.uint8, 255),
    "grey 0 and 1": grey(np.uint8, 1),
    "one bit": Image.fromarray(SQUARE),
    "16 bits": grey(np.uint16, 65535),
    "16 bits, a level that 8 bits would lose": grey(np.uint16, 256),
    "palette": palette(SQUARE),
    "colour channels all equal": grey(np.uint8, 255).convert("RGB"),
    "opaque": grey(np.uint8, 255).convert("RGBA"),
    "grey, opaque": grey(np.uint8, 255).convert("LA"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_may_be_stored_in_many_ways(form: str, tmp_path: Path) -> None:
    assert np.array_equal(read_mask(saved(tmp_path / "mask.png", FORMS[form])), SQUARE)


def transparent() -> Image.Image:
    image = grey(np.uint8, 255).convert("RGBA")
    image.putalpha(grey(np.uint8, 255))
    return image


REFUSED_MASKS = {
    "grey levels from 0 to 200": grey(np.uint8, 200).resize((60, 40), Image.Resampling.BILINEAR),
    "grey levels from 1 to 255": Image.fromarray(np.where(SQUARE, 255, 1).astype(np.uint8)),
    "the mask has colours": Image.merge("RGB", [grey(np.uint8, 255), *[Image.new("L", (30, 20))] * 2]),
    "the mask has transparent pixels": transparent(),
}


@pytest.mark.parametrize("reason", REFUSED_MASKS)
def test_a_mask_that_could_mean_several_things_is_refused(reason: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "mask.png", REFUSED_MASKS[reason].copy())
    with pytest.raises(InputError, match=rf"mask\.png: .*{reason}"):
        read_mask(path)


def test_a_stated_threshold_is_the_lowest_level_inside(tmp_path: Path) -> None:
    levels = np.array([[0, 127, 128], [129, 254, 255]], np.uint8)
    path = saved(tmp_path / "mask.png", Image.fromarray(levels))
    assert read_mask(path, threshold=128).tolist() == [[False, False, True], [True, True, True]]


def damaged(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / "file.png"
    data = encode_mask(np.random.default_rng(0).random((64, 64)) > 0.5)
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "bit error":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
    elif kind == "other format":
        Image.fromarray(SQUARE).convert("L").save(path, "BMP")
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("read", [read_mask, read_image])
@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("truncated", r"file\.png: not a whole .*PNG file"),
        ("text", r"file\.png: not a whole .*PNG file"),
        ("empty", r"file\.png: not a whole .*PNG file"),
        ("bit error", r"file\.png: not a whole .*PNG file"),
        ("other format", r"file\.png: not a whole .*PNG file"),
        ("folder", r"file\.png: no such file"),
        ("missing", r"file\.png: no such file"),
    ],
)
def test_a_damaged_file_is_one_clear_line(read: object, kind: str, line: str, tmp_path: Path) -> None:
    assert callable(read)
    with pytest.raises(InputError, match=line) as raised:
        read(damaged(kind, tmp_path))
    assert "\n" not in str(raised.value)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header states a size of which it holds no pixels."""
    data = io.BytesIO()
    Image.new("L", (1, 1)).save(data, "PNG")
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data.getvalue()[24:29]
    return data.getvalue()[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data.getvalue()[33:]


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (10_000, 10_000), (60_000, 60_000)])
def test_huge_sizes_are_refused_before_pixels_are_read(
    size: tuple[int, int], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_that_claims(*size))
    for read in (read_mask, read_image):
        with pytest.raises(InputError, match=rf"huge\.png: more than {MAX_SIDE} pixels a side"):
            read(path)
    assert not recwarn.list  # the error is the only line that people see


def test_an_image_of_16_bits_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "deep.png", grey(np.uint16, 40_000))
    with pytest.raises(InputError, match=r"deep\.png: pixels of mode I;16; save the image with 8 bits"):
        read_image(path)


def test_images_become_rgb(tmp_path: Path) -> None:
    picture = read_image(saved(tmp_path / "grey.png", grey(np.uint8, 77)))
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, np.repeat(SQUARE[..., None] * np.uint8(77), 3, axis=2))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_written_masks_are_read_again(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((height, width)) > 0.5
    with Image.open(io.BytesIO(encode_mask(mask))) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        assert np.array_equal(np.asarray(image), mask * np.uint8(255))
        assert np.array_equal(binary(np.asarray(image)), mask)


@pytest.mark.parametrize("shape", [(0, 5), (5,), (2, 2, 1), (1, MAX_SIDE + 1)])
def test_other_shapes_are_no_masks(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="a mask needs two sides"):
        binary(np.ones(shape, np.bool_))
