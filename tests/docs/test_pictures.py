"""Pictures in the documentation are small, readable, and shown."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.screenshots import LARGEST, WIDTH

ROOT = Path(__file__).resolve().parents[2]
PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.png"))
PICTURES_OF = {
    page: {
        page.parent / name for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}


def test_there_are_pictures_of_the_report_and_of_dagster() -> None:
    assert {path.name.split("_")[0] for path in PICTURES} == {"dagster", "report"}


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_small_and_shown(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    with Image.open(path) as picture:
        picture.load()
        assert WIDTH // 2 < picture.width <= WIDTH
    assert path in set().union(*PICTURES_OF.values())


@pytest.mark.parametrize("page", PICTURES_OF, ids=lambda page: page.name)
def test_a_page_shows_pictures_that_are_there(page: Path) -> None:
    assert [path for path in PICTURES_OF[page] if not path.is_file()] == []
