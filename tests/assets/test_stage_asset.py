"""What Dagster shows of a stage's result: pictures, figures, columns, rows, and links to pages."""

import base64
import io
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assets.pictures import KEPT_BYTES, KEPT_BYTES_TOGETHER, KEPT_WIDTH, SHOWN_IN_PLACE
from assets.stage_asset import result_metadata
from data_contracts.schemas import MASKS_SCHEMA
from jobs.runner.layout import StageAddress, output_folder
from jobs.runner.lineage import Lineage
from orchestration.page_server import PageHandler

NOTHING = {"figures": {}, "checks": []}


def made(root: Path, address: StageAddress) -> tuple[Lineage, Path]:
    folder = root / output_folder("smoke", address)
    (folder / "pictures").mkdir(parents=True)
    return Lineage(root=root, profile="smoke", stages=()), folder


def noise(path: Path, width: int, height: int, seed: int = 0) -> None:
    """What no format makes small."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def inline(metadata: dict[str, dg.MarkdownMetadataValue], name: str) -> bytes:
    found = re.fullmatch(r"!\[(.*)\]\(data:image/webp;base64,(.*)\)", metadata[name].md_str)
    assert found
    assert name == f"picture: {found[1]}"
    return base64.b64decode(found[2])


def test_figures_pictures_and_pages_are_on_the_asset_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTO_PAGES_URL", "http://pages")
    address = StageAddress("benchmark_report")
    lineage, folder = made(tmp_path, address)
    (folder / "report.html").write_text("1234567")
    Image.new("RGB", (2000, 1000), "white").save(folder / "pictures" / "scenes_samples.png")
    report = {"figures": {"scenes_altollm_grpo_giou": 0.41, "baselines_beaten": "28 of 28"}, "checks": []}

    metadata = result_metadata(lineage, address, None, report)

    assert metadata["scenes_altollm_grpo_giou"] == 0.41
    assert metadata["baselines_beaten"] == "28 of 28"
    assert metadata["report"].url == "http://pages/reports/smoke/benchmark_report/report.html"
    assert metadata["whole report"].url == "http://pages/report.html"
    assert metadata["files"] == 2
    assert metadata["bytes"] == 7 + (folder / "pictures" / "scenes_samples.png").stat().st_size
    kept = Image.open(io.BytesIO(inline(metadata, "picture: scenes_samples")))
    assert kept.size == (KEPT_WIDTH, KEPT_WIDTH // 2)
    assert next(iter(metadata)) == "pictures"


def test_pictures_in_the_event_log_are_small_however_large_they_are(tmp_path: Path) -> None:
    address = StageAddress("altollm_sft")
    lineage, folder = made(tmp_path, address)
    for number in range(10):
        noise(folder / "pictures" / f"p{number}.png", 900, 600, number)
    metadata = result_metadata(lineage, address, None, NOTHING)
    sizes = [len(inline(metadata, name)) for name in metadata if name.startswith("picture: ")]
    assert max(sizes) <= KEPT_BYTES
    assert sum(sizes) <= KEPT_BYTES_TOGETHER
    assert len(metadata["pictures"].md_str) < SHOWN_IN_PLACE


@contextmanager
def page_server(root: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(PageHandler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("stage", ["altollm_sft", "mask_tokens"])
def test_pictures_in_place_are_those_of_this_result_only(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = StageAddress(stage)
    lineage, folder = made(tmp_path, address)
    picture = folder / "pictures" / "samples.png"
    noise(picture, 900, 300)
    (folder / "weights.png").write_bytes(picture.read_bytes())
    with page_server(tmp_path) as pages:
        monkeypatch.setenv("ALTO_PAGES_URL", pages)
        text = result_metadata(lineage, address, None, NOTHING)["pictures"].md_str
        links = re.fullmatch(r"\[!\[samples\]\((.*)\)\]\((.*)\)\s*", text)
        assert links
        with urllib.request.urlopen(links[1]) as small, urllib.request.urlopen(links[2]) as whole:
            assert Image.open(small).size == (320, 107)
            assert whole.read() == picture.read_bytes()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{pages}/{(folder / 'weights.png').relative_to(tmp_path)}")
        noise(picture, 900, 300, seed=1)
        for link in links.groups():
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(link)


def test_rows_and_columns_are_those_of_the_files(tmp_path: Path) -> None:
    address = StageAddress("prepare_sa1b", "batch_000")
    lineage, folder = made(tmp_path, address)
    empty = MASKS_SCHEMA.empty_table()
    row = {
        field.name: (b"" if pa.types.is_binary(field.type) else "" if pa.types.is_string(field.type) else 0)
        for field in MASKS_SCHEMA
    } | {"masks": []}
    for number, rows in enumerate((2, 3)):
        table = pa.concat_tables([empty, pa.Table.from_pylist([row] * rows, schema=MASKS_SCHEMA)])
        pq.write_table(table, folder / f"shard-{number:05d}.parquet")
    metadata = result_metadata(lineage, address, None, NOTHING)
    assert metadata["dagster/partition_row_count"] == 5
    columns = {column.name: column for column in metadata["dagster/column_schema"].columns}
    assert columns["width"].type == "int32"
    assert columns["width"].description == "of the stored image and of its masks"
    assert columns["width"].tags == {"unit": "pixels"}
    assert columns["masks"].type == "list of record"
    assert columns["masks[].counts"].description == "runs of the mask, of the size of the stored image"
    assert columns["masks[].predicted_iou"].constraints.nullable


def test_a_result_that_is_only_in_the_remote_is_shown_without_files(tmp_path: Path) -> None:
    lineage = Lineage(root=tmp_path, profile="smoke", stages=())
    report = {"figures": {"masks": 3}, "checks": []}
    metadata = result_metadata(lineage, StageAddress("mask_tokens"), None, report)
    assert metadata.keys() == {"masks", "output"}
