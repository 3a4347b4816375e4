"""Pages as a browser shows them: opened from disk, offline, with everything that goes wrong written down."""

import shutil
from collections.abc import Iterator
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


@contextmanager
def opened(path: Path, width: int = 1280, height: int = 900) -> Iterator[OpenPage]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            shown = OpenPage(
                browser.new_context(offline=True, viewport={"width": width, "height": height}).new_page()
            )
            shown.page.on("request", lambda r: r.url.startswith("data:") or shown.requests.append(r.url))
            shown.page.on(
                "console", lambda m: m.type in ("error", "warning") and shown.complaints.append(m.text)
            )
            shown.page.on("pageerror", lambda error: shown.complaints.append(str(error)))
            shown.page.goto(path.resolve().as_uri())
            shown.page.wait_for_load_state("load")
            yield shown
        finally:
            browser.close()
