"""The pages that stages write, in headless Chromium: nothing missing, nothing asked for from outside."""

from pathlib import Path

import pytest

from tests.jobs.benchmark_example import known_systems
from tests.jobs.browser import needs_chromium, opened
from tests.jobs.preparation.test_page import prepared
from tests.jobs.test_benchmark_report import make_inputs, make_report

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Heading -> page."""
    folder = tmp_path_factory.mktemp("pages")
    report = make_report(folder / "made", make_inputs(folder, known_systems()))[1] / "report.html"
    return {"Benchmark report": report, "set": prepared(folder / "prepared") / "page.html"}


@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
@pytest.mark.parametrize(("heading", "pictures"), [("Benchmark report", 15), ("set", 5)])
def test_a_page_opens_from_disk_as_one_file(
    pages: dict[str, Path], tmp_path: Path, heading: str, pictures: int, width: int
) -> None:
    alone = tmp_path / "page.html"
    alone.write_bytes(pages[heading].read_bytes())
    with opened(alone, width) as shown:
        assert shown.broken_pictures() == []
        assert shown.page.locator("img").count() > pictures
        assert shown.requests == [alone.as_uri()]
        assert shown.complaints == []
        assert shown.overflow() <= 0
        assert shown.page.get_by_role("heading", name=heading).is_visible()


@pytest.mark.parametrize("heading", ["Benchmark report", "set"])
def test_links_within_a_page_lead_somewhere(pages: dict[str, Path], heading: str) -> None:
    with opened(pages[heading]) as shown:
        links = shown.page.eval_on_selector_all("a[href^='#']", "all => all.map(one => one.hash.slice(1))")
        assert links
        for name in links:
            assert shown.page.locator(f"[id='{name}']").count() == 1, name
