"""Preparing small benchmarks and looking at what came of it."""

from pathlib import Path
from typing import Any

import numpy as np

from alto_models import masks as mask_arithmetic
from alto_models.data.referring import ReferringImages, ReferringRecord
from jobs import prepare_benchmark
from jobs.runner.context import StageReport
from tests.jobs.raw_data import context
from tests.jobs.test_prepare import assert_accounted_for, quarantined


def prepared(folder: Path, limit: float = 1.0, **chosen: Any) -> tuple[StageReport, Path]:
    given_ = context(folder, "prepare_benchmark", "set")
    parameters = {"benchmarks": {"set": chosen}, "contract": {"max_quarantined_share": limit}}
    report = prepare_benchmark.run(prepare_benchmark.Config.model_validate(parameters), given_)
    return report, given_.output


def records_of(output: Path, split: str | None = None) -> dict[str, ReferringRecord]:
    return {record.record_id: record for image in ReferringImages(output, split) for record in image.records}


def decoded(record: ReferringRecord) -> np.ndarray:
    assert record.rle is not None
    return mask_arithmetic.decode(record.rle)


def assert_quarantined(report: StageReport, output: Path, rules: list[str], accepted: list[str]) -> None:
    """Every row broke the rule it should, in order of reading, and the others are there."""
    assert_accounted_for(report, output, len(rules) + len(accepted))
    assert [row["rule"] for row in quarantined(output)] == rules
    assert list(records_of(output)) == accepted
    assert all(row["value"] and row["reason"] for row in quarantined(output))
