"""The page of a partition shows what is in its files, and needs nothing but itself."""

import re
from collections import Counter
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.referring import REFERRING_COLUMNS
from jobs.partition_page.histograms import column_histogram, count_manifest, counted_histogram
from jobs.preparation import tables
from jobs.preparation.contract_frame import manifest_schema
from jobs.preparation.prepare import prepare
from jobs.preparation.referring import REFERRING
from jobs.preparation.settings import ContractConfig
from jobs.preparation.tables import TableWriter
from orchestration.page_server import PageHandler
from tests.jobs.raw_data import acquired, coco_annotation, context, write_coco

HOSTILE = "<script>alert(1)</script> $x_$"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("page"))


def prepared(folder: Path) -> Path:
    """Output of a partition with hostile words and broken masks in it."""
    path = acquired(folder, "set", "coco_instances")
    annotations = [coco_annotation(number, number % 4) for number in range(6)]
    annotations += [coco_annotation(10, 1, 2, area=99.0), coco_annotation(11, 2, 2, segmentation=HOSTILE)]
    write_coco(path, list(range(4)), annotations)
    given = context(folder, "prepare_referring", "set")
    prepare(REFERRING, path, 0.2, ContractConfig(max_quarantined_share=0.1), given)
    return given.output


def test_counts_rules_and_examples_are_on_the_page(output: Path) -> None:
    page = (output / "page.html").read_text()
    rows = pq.read_table(output / "quarantine.parquet").to_pylist()
    assert {row["rule"] for row in rows} >= {"area_as_stated"}
    for row in rows:
        assert f'<a href="#{row["rule"]}">' in page
        assert row["reason"].replace("'", "&#39;") in page
    assert "rows quarantined" in page
    assert 'class="lead verdict no"' in page
    pictures = re.findall(r'alt="(Accepted sample|Sample quarantined)', page)
    assert Counter(pictures)["Accepted sample"] == 4
    assert "Sample quarantined" in pictures


def test_the_page_is_one_file_without_code(output: Path) -> None:
    page = (output / "page.html").read_text()
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "http" not in re.sub(r'"data:[^"]*"', "", page)


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> None:
    schema = manifest_schema(REFERRING_COLUMNS)
    with TableWriter(path, schema) as writer:
        for row in rows:
            writer.add(pa.Table.from_pylist([row], schema=schema))


def test_counts_do_not_depend_on_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    masks = random.integers(0, 5, 40).tolist()
    rows: list[dict[str, Any]] = []
    for image, count in enumerate(masks):
        shared = {"image_id": str(image), "width": 10 + image % 3, "height": 5}
        rows += [shared | {"mask_id": str(n), "category": "cup", "area": n + 1} for n in range(count)]
        if count == 0:
            rows.append(shared | {"mask_id": ""})
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 3)
    path = tmp_path / "manifest.parquet"
    write_manifest(path, rows)
    assert pq.read_metadata(path).num_row_groups > 10
    counts = count_manifest(path)
    assert counts.masks_per_image == Counter(masks)
    assert counts.longer_sides == Counter(10 + image % 3 for image in range(len(masks)))
    assert counts.categories == Counter(cup=sum(masks))
    histogram, areas = column_histogram(path, "area"), [row["area"] for row in rows if "area" in row]
    assert histogram is not None
    np.testing.assert_array_equal(histogram.counts, np.histogram(areas, histogram.edges)[0])
    assert histogram.counts.sum() == len(areas)
    of_images = counted_histogram(counts.masks_per_image)
    assert of_images is not None
    assert of_images.counts.tolist() == [masks.count(count) for count in range(5)]


def test_an_empty_manifest_has_no_distributions(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.parquet", [])
    assert column_histogram(tmp_path / "manifest.parquet", "area") is None
    assert counted_histogram(count_manifest(tmp_path / "manifest.parquet").longer_sides) is None


def test_pages_of_data_are_served_and_nothing_else_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "small" / "prepare_sa1b" / "batch"
    folder.mkdir(parents=True)
    for name in ("page.html", "report.json"):
        (folder / name).write_text("here")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(PageHandler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/data/small/prepare_sa1b/batch"
        with urlopen(f"{base}/page.html") as answer:
            assert answer.read() == b"here"
        with pytest.raises(HTTPError):
            urlopen(f"{base}/report.json")
        server.shutdown()
