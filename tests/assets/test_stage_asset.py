"""What Dagster shows of a stage's result: figures, pictures, and links to pages."""

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from assets.stage_asset import PICTURE_WIDTH, result_metadata
from jobs.runner.layout import StageAddress, output_folder
from jobs.runner.lineage import Lineage


def test_figures_pictures_and_pages_are_on_the_asset_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTO_PAGES_URL", "http://pages")
    lineage = Lineage(root=tmp_path, profile="smoke", stages=())
    address = StageAddress("benchmark_report")
    folder = tmp_path / output_folder("smoke", address)
    (folder / "pictures").mkdir(parents=True)
    (folder / "report.html").touch()
    Image.new("RGB", (2000, 1000), "white").save(folder / "pictures" / "scenes_samples.png")
    report = {"figures": {"scenes_altollm_grpo_giou": 0.41, "baselines_beaten": "28 of 28"}, "checks": []}

    metadata = result_metadata(lineage, address, None, report)

    assert metadata["scenes_altollm_grpo_giou"] == 0.41
    assert metadata["baselines_beaten"] == "28 of 28"
    assert metadata["report"].url == "http://pages/reports/smoke/benchmark_report/report.html"
    assert metadata["whole report"].url == "http://pages/report.html"
    shown = re.fullmatch(
        r"!\[scenes_samples\]\(data:image/webp;base64,(.*)\)", metadata["picture: scenes_samples"].md_str
    )
    assert shown
    assert Image.open(io.BytesIO(base64.b64decode(shown[1]))).size == (PICTURE_WIDTH, PICTURE_WIDTH // 2)
