"""Dagster's pages as a person uses them: by what is written on them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, sync_playwright

from tests.jobs.browser import CHROMIUM, FLAGS, OpenPage, watched

WIDTH = 1400  # pixels
DEADLINE = 300_000  # milliseconds, for everything that is waited for: machines are busy
RUN_HAS_ENDED = re.compile(r"^(Success|Failure|Canceled)$")


@dataclass(frozen=True)
class DagsterPages:
    """address: of the pages. shown: what the browser shows now, and what went wrong so far."""

    address: str
    shown: OpenPage

    @property
    def page(self) -> Page:
        return self.shown.page

    def open(self, path: str) -> None:
        self.page.goto(f"{self.address}/{path}")

    def open_lineage(self, groups: list[str]) -> None:
        """The lineage of all assets, with the list of each group's assets opened."""
        self.open("asset-groups")
        for group in groups:
            self.page.get_by_title(group, exact=True).first.click()
            self.page.keyboard.press("ArrowRight")

    def launch(self, asset: str, *partitions: str) -> None:
        """Materialize from the asset's page and go on to the page of the run, or of the backfill."""
        self.open(f"assets/{asset}")
        self.page.get_by_role("button", name="Materialize").click()
        if partitions:
            self.select(partitions)
            self.page.get_by_role("button", name=re.compile("^Launch (1 run|backfill)$")).click()
        self.page.get_by_role("link", name="View", exact=True).click()
        self.page.wait_for_url("**/runs/**")

    def select(self, partitions: tuple[str, ...]) -> None:
        """In the dialog that launches runs."""
        self.page.get_by_text("Select a partition or create one").click()
        everything = self.page.get_by_text("Select all")
        everything.wait_for()
        for partition in partitions:
            self.page.get_by_title(partition, exact=True).last.click()
        self.page.get_by_text("Launch runs to materialize").click()
        everything.wait_for(state="hidden")

    def end_of_run(self) -> str:
        """What the page of a run says in the end."""
        status = self.page.get_by_text(RUN_HAS_ENDED).first
        status.wait_for()
        return status.inner_text()

    def open_tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def open_partition(self, asset: str, partition: str) -> None:
        self.open(f"assets/{asset}")
        self.open_tab("Partitions")
        self.page.get_by_title(partition, exact=True).first.click()
        self.page.get_by_text("Materialized", exact=True).wait_for()

    def open_check(self, asset: str, check: str) -> None:
        self.open(f"assets/{asset}")
        self.open_tab("Checks")
        self.page.get_by_title(check, exact=True).first.click()
        self.page.get_by_text("Evaluation result").wait_for()

    def row(self, key: str) -> Locator:
        """Of a table, by what is in a cell of it."""
        return self.page.get_by_role("row").filter(has=self.page.get_by_role("cell", name=key, exact=True))


def outside(shown: OpenPage) -> list[str]:
    """What was asked for that is not on this machine."""
    return [one for one in shown.requests if urlsplit(one.removeprefix("blob:")).hostname != "127.0.0.1"]


@contextmanager
def dagster_pages(address: str, folder: Path, height: int = 1000) -> Iterator[DagsterPages]:
    """A browser window of its own. Fails where a page complained, or asked for anything from outside this machine; what
    was shown when something failed is kept in the folder."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            window = browser.new_context(
                viewport={"width": WIDTH, "height": height}, color_scheme="light", reduced_motion="reduce"
            )
            window.set_default_timeout(DEADLINE)
            shown = watched(window.new_page(), complaints=("error",))
            try:
                yield DagsterPages(address, shown)
                assert shown.complaints == [], shown.complaints
                assert outside(shown) == [], outside(shown)
            except BaseException:
                picture = folder / "shown.png"
                shown.page.screenshot(path=picture)
                print(f"what the browser showed: {picture}")
                raise
        finally:
            browser.close()
