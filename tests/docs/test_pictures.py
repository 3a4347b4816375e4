"""Pictures in the documentation are small, readable, and shown."""

from pathlib import Path

import pytest
from PIL import Image

from tests.screenshots import LARGEST, WIDTH

ROOT = Path(__file__).resolve().parents[2]
PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.png"))


def test_there_are_pictures_of_the_report_and_of_dagster() -> None:
    assert {path.name.split("_")[0] for path in PICTURES} == {"dagster", "report"}


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_small_and_shown(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    with Image.open(path) as picture:
        picture.load()
        assert picture.width == WIDTH
    assert any(f"(pictures/{path.name})" in page.read_text() for page in (ROOT / "docs").glob("*.md"))
