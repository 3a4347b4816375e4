"""Pictures of the pages for the documentation, made from what this project's lineage last made.

`python -m tests.screenshots`, after `make demo` (which draws its data itself), writes docs/pictures/*.png: the whole
report and the pages of Dagster, as headless Chromium shows them.
"""

import io
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from jobs.runner.layout import project_root
from tests.jobs.browser import CHROMIUM, FLAGS

WIDTH = 1280
LARGEST = 200_000  # bytes of a picture
SECONDS_TO_START = 300
SECONDS_TO_SHOW = 240

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
    "dagster_asset": ("/assets/benchmark_report?view=overview", "baselines_beaten"),
    "dagster_checks": ("/assets/benchmark_report?view=checks", "beats_champion"),
    "dagster_lineage": (
        "/assets/benchmark_report?view=lineage&lineageScope=upstream&lineageDepth=20",
        "acquire_sa1b",
    ),
}


def main() -> None:
    root = project_root()
    folder = root / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        with user_interface(root) as (dagster, pages):
            page.goto(f"{pages}/report.html", timeout=1000 * SECONDS_TO_SHOW)
            for name, (part, height) in REPORT_PARTS.items():
                keep(page, folder / f"{name}.png", part_of(page, part, height))
            for name, (path, text) in DAGSTER_PAGES.items():
                page.goto(dagster + path)
                page.get_by_text(text).first.wait_for(timeout=1000 * SECONDS_TO_SHOW)
                page.wait_for_load_state("networkidle")
                keep(page, folder / f"{name}.png", None)
        browser.close()


@contextmanager
def user_interface(root: Path) -> Iterator[tuple[str, str]]:
    """`alto ui` on free ports: the addresses of Dagster and of the pages."""
    ports = [free_port() for _ in range(3)]
    named = zip(("--dagster-port", "--mlflow-port", "--pages-port"), ports, strict=True)
    command = [
        sys.executable,
        "-m",
        "orchestration.cli",
        "ui",
        *(str(part) for pair in named for part in pair),
    ]
    process = subprocess.Popen(command, cwd=root)
    dagster, pages = (f"http://127.0.0.1:{port}" for port in (ports[0], ports[2]))
    try:
        wait_for(f"{dagster}/server_info", process)
        yield dagster, pages
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("`alto ui` did not start: see the lines above")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def part_of(page: Page, selector: str, height: int) -> dict[str, float]:
    box = page.locator(selector).first.bounding_box()
    assert box is not None, selector
    return {"x": 0, "y": max(0, box["y"] - 16), "width": WIDTH, "height": height}


def keep(page: Page, path: Path, clip: dict[str, float] | None) -> None:
    """Write a picture of the page or of a part of it, in as many colours as `LARGEST` allows."""
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
