"""Pictures of the pages for the documentation, made from what this project's lineage last made.

`python -m tests.screenshots`, after `make demo` (which draws its data itself), writes docs/pictures/*.png as headless
Chromium shows them: the whole report and its asset, and what people see who materialize stages by clicks.
"""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page

from jobs.runner.layout import project_root
from tests.browser.dagster_pages import WIDTH, dagster_pages
from tests.browser.served_project import DAMAGED, SOUND, make_project, user_interface

HEIGHT = 900  # pixels, of a window
LARGEST = 200_000  # bytes of a picture

# Picture -> what the page scrolls to, and the height that is shown, in pixels.
REPORT_PARTS = {
    "report_top": ("header", 1050),
    "report_samples": ("h3:text-is('Samples')", 560),
    "report_training": ("#training", 1000),
    "report_data": ("#data", 800),
    "report_versions": ("#versions", 900),
}
# Picture -> path, and a text that is there when the page is complete.
DAGSTER_PAGES = {
    "dagster_asset": ("assets/benchmark_report?view=overview", "baselines_beaten"),
    "dagster_checks": ("assets/benchmark_report?view=checks", "beats_champion"),
    "dagster_lineage": (
        "assets/benchmark_report?view=lineage&lineageScope=upstream&lineageDepth=20",
        "acquire_sa1b",
    ),
}


def main() -> None:
    root = project_root()
    folder = root / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    lineage_pages(root, folder)
    clicked_pages(folder)


def lineage_pages(root: Path, folder: Path) -> None:
    """The whole report and its asset, of what was last made here.

    Dagster's own history is left out: pictures and links in it have the address at which pages were served then.
    """
    with (
        TemporaryDirectory(prefix="alto-") as scratch,
        user_interface(root, dagster_home=Path(scratch)) as served,
        dagster_pages(served.dagster, root / ".work", HEIGHT) as dagster,
    ):
        dagster.page.goto(f"{served.pages}/report.html")
        for name, (part, height) in REPORT_PARTS.items():
            keep(dagster.page, folder / f"{name}.png", part_of(dagster.page, part, height))
        for name, (path, text) in DAGSTER_PAGES.items():
            dagster.open(path)
            dagster.page.get_by_text(text).first.wait_for()
            keep(dagster.page, folder / f"{name}.png")


def clicked_pages(folder: Path) -> None:
    """What is to be seen after the clicks of tests/browser, in a project of their own."""
    with (
        TemporaryDirectory(prefix="alto-") as scratch,
        user_interface(make_project(Path(scratch))) as served,
        dagster_pages(served.dagster, Path(scratch), HEIGHT) as dagster,
    ):
        dagster.launch("prepare_sa1b", SOUND)
        dagster.end_of_run()
        dagster.open_partition("prepare_sa1b", SOUND)
        keep(dagster.page, folder / "dagster_materialization.png")
        dagster.launch("prepare_sa1b", DAMAGED)
        dagster.end_of_run()
        dagster.open_check("prepare_sa1b", "contract")
        keep(dagster.page, folder / "dagster_failed_check.png")
        dagster.launch("acquire_referring", "refcoco", "alto_pairs")
        dagster.page.get_by_text("100% completed").wait_for()
        keep(dagster.page, folder / "dagster_backfill.png", {"x": 0, "y": 0, "width": WIDTH, "height": 340})


def part_of(page: Page, selector: str, height: int) -> dict[str, float]:
    box = page.locator(selector).first.bounding_box()
    assert box is not None, selector
    return {"x": 0, "y": max(0, box["y"] - 16), "width": WIDTH, "height": height}


def keep(page: Page, path: Path, clip: dict[str, float] | None = None) -> None:
    """Write a picture of the page or of a part of it, in as many colours as `LARGEST` allows."""
    page.wait_for_load_state("networkidle")
    shown = page.screenshot(full_page=clip is not None, clip=clip)
    with Image.open(io.BytesIO(shown)) as picture:
        for colours in (256, 128, 64, 32):
            encoded = io.BytesIO()
            picture.convert("RGB").quantize(colours, method=Image.Quantize.FASTOCTREE).save(
                encoded, "png", optimize=True
            )
            if len(encoded.getvalue()) < LARGEST:
                break
    path.write_bytes(encoded.getvalue())
    print(f"{path}: {len(encoded.getvalue()) // 1000} kB")


if __name__ == "__main__":
    main()
