"""Statistics of a manifest, a few of its columns in memory at a time."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.statistics import STATISTICS_FILE, DataStatistics, Distribution

QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9}
CATEGORIES = 100
DIGITS = 6


def write_statistics(manifest: Path) -> None:
    """`statistics.json` beside the manifest."""
    text = measure(manifest).model_dump_json(indent=1) + "\n"
    (manifest.parent / STATISTICS_FILE).write_text(text)


def measure(manifest: Path) -> DataStatistics:
    """Statistics of the accepted rows. Figures of columns that a manifest lacks, or of nothing, are left out."""
    columns = set(pq.read_schema(manifest).names)
    distributions: dict[str, Distribution | None] = {}
    shares, categories = {}, {}
    if "area" in columns:
        table = pq.read_table(manifest, columns=["area", "pixels", "boundary_length"])
        masks = table.filter(pc.is_valid(table["area"]))
        distributions["area_share"] = _of(
            pc.divide(masks["area"].cast(pa.float64()), masks["pixels"].cast(pa.float64()))
        )
        distributions["boundary_length"] = _of(masks["boundary_length"])
        images = pq.read_table(manifest, columns=["image_id", "area"])
        distributions["masks_per_image"] = _of(images.group_by("image_id").aggregate([("area", "count")])[1])
    if "longest_expression" in columns:
        rows = pq.read_table(manifest, columns=["image_id", "row_id", "longest_expression"])
        records = rows.group_by(["image_id", "row_id"]).aggregate([("longest_expression", "max")])
        distributions["expression_length"] = _of(records["longest_expression_max"])
    if "no_target" in columns:
        rows = pq.read_table(manifest, columns=["image_id", "row_id", "no_target"])
        records = rows.group_by(["image_id", "row_id"]).aggregate([("no_target", "max")])
        if len(records):
            shares["no_target"] = _rounded(pc.mean(records["no_target_max"].cast(pa.int64())).as_py())
    if "category" in columns:
        categories = _categories(pq.read_table(manifest, columns=["category"])["category"])
    return DataStatistics(
        distributions={name: value for name, value in distributions.items() if value is not None},
        shares=shares,
        categories=categories,
    )


def _of(values: pa.ChunkedArray) -> Distribution | None:
    numbers = values.drop_null().cast(pa.float64()).to_numpy()
    if not len(numbers):
        return None
    quantiles = np.quantile(numbers, list(QUANTILES.values()))
    return Distribution(
        count=len(numbers),
        mean=_rounded(float(numbers.mean())),
        quantiles={name: _rounded(float(value)) for name, value in zip(QUANTILES, quantiles, strict=True)},
    )


def _categories(values: pa.ChunkedArray) -> dict[str, float]:
    counts = values.drop_null().value_counts().to_pylist()
    total = sum(each["counts"] for each in counts)
    most = sorted(counts, key=lambda each: (-each["counts"], each["values"]))[:CATEGORIES]
    return {each["values"]: _rounded(each["counts"] / total) for each in most}


def _rounded(value: float) -> float:
    """Sums of so many numbers are the same to so many digits, however they are added up."""
    return float(f"{value:.{DIGITS}g}")
