"""Pages as a browser shows them, with everything that goes wrong written down."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs the Debian package chromium, which .ci/run installs"
)


@dataclass
class OpenPage:
    """requests: addresses asked for, without those inside the page (data:). complaints: of the console, and errors."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def broken_pictures(self) -> list[str]:
        """Beginnings of the addresses of pictures that show nothing."""
        found: list[str] = self.page.evaluate(
            "async () => { const all = [...document.images];"
            " await Promise.all(all.map(one => one.decode().catch(() => null)));"
            " return all.filter(one => !one.naturalWidth).map(one => one.src.slice(0, 80)); }"
        )
        return found

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        width: int = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return width


def watched(page: Page, complaints: Sequence[str] = ("error", "warning")) -> OpenPage:
    """A page on which nothing has been opened yet. complaints: levels of the console's lines that count as such."""
    shown = OpenPage(page)
    page.on("request", lambda request: request.url.startswith("data:") or shown.requests.append(request.url))
    page.on("console", lambda said: said.type in complaints and shown.complaints.append(said.text))
    page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    return shown


@contextmanager
def opened(path: Path, width: int = 1280, height: int = 900) -> Iterator[OpenPage]:
    """A file, offline."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            size = {"width": width, "height": height}
            shown = watched(browser.new_context(offline=True, viewport=size).new_page())
            shown.page.goto(path.resolve().as_uri())
            shown.page.wait_for_load_state("load")
            yield shown
        finally:
            browser.close()
