"""Statistics of a manifest against pandas."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.masks import SA1B_CONTRACT
from data_contracts.referring import REFERRING_CONTRACT
from data_contracts.rules import Contract
from data_contracts.statistics import DataStatistics
from data_contracts.vqa import POPE_CONTRACT
from jobs.preparation.contract_frame import as_frame, as_table
from jobs.preparation.statistics import measure


def manifest(path: Path, contract: Contract, rows: list[dict[str, object]]) -> pd.DataFrame:
    frame = as_frame(rows, contract.columns)
    pq.write_table(as_table(frame, contract.columns), path)
    return frame


def record(image: str, row: str, area: int | None, expression: int, **more: object) -> dict[str, object]:
    mask = {"area": area, "pixels": 1000, "boundary_length": area} if area else {"pixels": 1000}
    return (
        {"image_id": image, "row_id": row, "longest_expression": expression, "no_target": not area}
        | mask
        | more
    )


ROWS = [
    record("a", "1", 100, 5, category="cup"),
    record("a", "1", 300, 5, category="plate"),
    record("a", "2", None, 9),
    record("b", "3", 20, 7, category="cup"),
    record("c", "4", None, 11),
]  # fmt: skip


def test_figures_are_those_of_masks_images_and_records(tmp_path: Path) -> None:
    found = measure_rows(tmp_path, REFERRING_CONTRACT)
    shares, images = pd.Series([0.1, 0.3, 0.02]), pd.Series([2, 1, 0])
    for name, values in (
        ("area_share", shares),
        ("masks_per_image", images),
        ("boundary_length", shares * 1000),
        ("expression_length", pd.Series([5, 9, 7, 11])),
    ):
        distribution = found.distributions[name]
        assert distribution.count == len(values)
        assert distribution.mean == pytest.approx(values.mean(), rel=1e-5)
        for quantile, place in (("q10", 0.1), ("q50", 0.5), ("q90", 0.9)):
            assert distribution.quantiles[quantile] == pytest.approx(values.quantile(place), rel=1e-5)
    assert found.shares == {"no_target": 0.5}
    assert found.categories == pytest.approx({"cup": 2 / 3, "plate": 1 / 3}, rel=1e-5)


def measure_rows(folder: Path, contract: Contract) -> DataStatistics:
    manifest(folder / "manifest.parquet", contract, ROWS)
    return measure(folder / "manifest.parquet")


def test_what_a_data_set_does_not_have_is_left_out(tmp_path: Path) -> None:
    masks = measure_rows(tmp_path, SA1B_CONTRACT)
    assert set(masks.distributions) == {"area_share", "boundary_length", "masks_per_image"}
    assert masks.shares == {}
    questions = measure_rows(tmp_path, POPE_CONTRACT)
    assert set(questions.distributions) == {"expression_length"}
    empty = pa.Table.from_pylist([], schema=pq.read_schema(tmp_path / "manifest.parquet"))
    pq.write_table(empty, tmp_path / "manifest.parquet")
    assert measure(tmp_path / "manifest.parquet").distributions == {}
