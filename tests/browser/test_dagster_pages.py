"""What people do in Dagster, done in headless Chromium by clicks, on a real project and its real services."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from orchestration.definitions import build_definitions
from tests.browser.dagster_pages import DEADLINE, dagster_pages
from tests.browser.served_project import DAMAGED, SOUND, Interface, make_project, user_interface
from tests.jobs.browser import needs_chromium, watched
from tests.lineage.project import run

pytestmark = [pytest.mark.slow, needs_chromium, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interface]:
    with user_interface(make_project(tmp_path_factory.mktemp("browser"))) as interface:
        yield interface


@pytest.fixture(scope="module")
def assets(served: Interface) -> list[dg.AssetSpec]:
    return list(build_definitions(served.root).resolve_all_asset_specs())


def figures(root: Path, output: str) -> dict[str, float | int | str]:
    return json.loads((root / output / "report.json").read_text())["figures"]


def test_the_lineage_page_shows_every_group_and_asset(
    served: Interface, assets: list[dg.AssetSpec], tmp_path: Path
) -> None:
    groups = sorted({str(asset.group_name) for asset in assets})
    assert len(groups) > 5
    assert len({asset.description for asset in assets}) == len(assets) > 15
    with dagster_pages(served.dagster, tmp_path, height=1600) as dagster:
        dagster.open_lineage(groups)
        for asset in assets:
            name, description = asset.key.to_user_string(), str(asset.description)
            dagster.page.get_by_title(name, exact=True).first.click()
            summary = description.splitlines()[0].replace("`", "")
            dagster.page.get_by_text(summary).first.wait_for()


def test_a_stage_is_materialized_by_clicks(served: Interface, tmp_path: Path) -> None:
    address = f"prepare_sa1b@{SOUND}"
    with dagster_pages(served.dagster, tmp_path) as dagster:
        dagster.launch("prepare_sa1b", SOUND)
        assert dagster.end_of_run() == "Success"
        dagster.open_partition("prepare_sa1b", SOUND)
        made = figures(served.root, f"data/smoke/prepare_sa1b/{SOUND}")
        for name in ("rows_read", "rows_accepted", "images_accepted"):
            assert str(made[name]) in dagster.row(name).inner_text().split()
        dagster.row("picture: accepted").get_by_text("Show Markdown").click()
        dagster.page.get_by_role("dialog").get_by_role("img", name="accepted").wait_for()
        assert dagster.shown.broken_pictures() == []
    assert "up to date" in run(served.root, "-m", "dvc", "status", address).stdout


def test_a_failed_check_says_why(served: Interface, tmp_path: Path) -> None:
    with dagster_pages(served.dagster, tmp_path) as dagster:
        dagster.launch("prepare_sa1b", DAMAGED)
        assert dagster.end_of_run() == "Failure"
        dagster.page.get_by_text("blocking check failed, nothing recorded").first.wait_for()
        dagster.open_check("prepare_sa1b", "contract")
        assert dagster.page.get_by_text("This is a blocking asset check").is_visible()
        reason = dagster.page.get_by_text("rows quarantined").first.inner_text()
        assert "damaged" in reason
        assert "mask_readable" in reason
        assert dagster.page.get_by_text("Failed", exact=True).count() > 0
    assert not (served.root / "data/smoke/prepare_sa1b" / DAMAGED).exists()


def test_a_backfill_of_two_partitions_is_launched_by_clicks(served: Interface, tmp_path: Path) -> None:
    chosen = ("refcoco", "alto_pairs")
    with dagster_pages(served.dagster, tmp_path) as dagster:
        dagster.launch("acquire_referring", *chosen)
        dagster.page.get_by_text("100% completed").wait_for()
        words = dagster.page.locator("body").inner_text().split()
        assert set(chosen) <= set(words)
        assert words[-4:] == ["2", "0", "2", "0"]  # targeted, in progress, succeeded, failed
    for name in chosen:
        assert figures(served.root, f"data/smoke/acquire_referring/{name}")["images"]
    assert not (served.root / "data/smoke/acquire_referring/grefcoco").exists()


@pytest.mark.parametrize("link", ["report", "whole report"])
def test_the_report_opens_from_its_asset(served: Interface, tmp_path: Path, link: str) -> None:
    with dagster_pages(served.dagster, tmp_path) as dagster:
        dagster.open("assets/benchmark_report")
        with dagster.page.context.expect_page(timeout=DEADLINE) as opening:
            dagster.row(link).get_by_role("link").first.click()
        report = watched(opening.value)
        report.page.get_by_role("heading", name="Benchmark report").wait_for()
        report.page.wait_for_load_state("load")
        assert report.page.url.startswith(served.pages)
        assert report.page.locator("img").count() > 15
        assert report.broken_pictures() == []
        assert report.complaints == []
