"""Shards put together from right and broken pieces in any order: everything is accounted for, the right is kept."""

import tarfile
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.preparation import validation
from jobs.preparation.prepare import prepare
from jobs.preparation.sa1b import SA1B
from jobs.preparation.settings import ContractConfig
from jobs.preparation.validation import ManifestValidation
from tests.jobs.raw_data import HEIGHT, WIDTH, acquired, add_member, annotation, context, jpeg, sa1b_json

IMAGES: dict[str, Callable[[], bytes | None]] = {
    "right": jpeg,
    "cmyk": lambda: jpeg(mode="CMYK"),
    "none": lambda: None,
    "empty": lambda: b"",
    "cut": lambda: jpeg()[:-200],
    "other size": lambda: jpeg(WIDTH + 1),
    "text": lambda: b"404 not found",
}
ANNOTATIONS: dict[str, Any] = {
    "right": {},
    "short runs": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [100, 60]}},
    "negative": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1000, 60, -100]}},
    "wrong area": {"area": 61},
    "no box": {"bbox": None},
    "nan": {"area": float("nan")},
    "text": {"predicted_iou": "0.9"},
}
shards = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.sampled_from(sorted(IMAGES)),
        st.lists(st.sampled_from(sorted(ANNOTATIONS)), max_size=4),
        st.sampled_from(["json", "none", "list", "cut"]),
    ),
    max_size=6,
)


def annotations(kinds: list[str], form: str, image_id: int) -> bytes | None:
    rows = [annotation(number, **ANNOTATIONS[kind]) for number, kind in enumerate(kinds)]
    whole = sa1b_json(image_id, rows)
    return {"json": whole, "none": None, "list": b"[]", "cut": whole[: len(whole) // 2]}[form]


@settings(max_examples=25, deadline=None)
@given(entries=shards)
def test_accepted_and_quarantined_are_what_was_read(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    path = acquired(folder, "batch", "sa1b")
    right = 0
    with tarfile.open(path / "sa_000000.tar", "w") as tar:
        seen: set[int] = set()
        for name, (image_id, image, kinds, form) in enumerate(entries):
            data, content = IMAGES[image](), annotations(kinds, form, image_id)
            for suffix, member in ((".jpg", data), (".json", content)):
                if member is not None:
                    add_member(tar, f"sa_{name}{suffix}", member)
            if data is None and content is None:
                continue
            new_id = image_id if form == "json" else -1 - name
            if form == "json" and image in ("right", "cmyk") and new_id not in seen:
                right += kinds.count("right")
            seen.add(new_id)
    given_ = context(folder, "prepare_sa1b", "batch")
    with pytest.MonkeyPatch.context() as patch:
        # Great Expectations takes a second a time, and is tested elsewhere.
        patch.setattr(validation, "validate_manifest", lambda *arguments: ManifestValidation())
        report = prepare(SA1B, path, 0.0, ContractConfig(), given_)
    figures: dict[str, Any] = dict(report.figures)
    rejected = pq.read_table(given_.output / "quarantine.parquet").to_pylist()
    assert figures["rows_accepted"] == right
    assert figures["rows_accepted"] + sum(row["rows"] for row in rejected) == figures["rows_read"]
    assert all(row["value"] and row["reason"] for row in rejected)
    stored = [row for shard in given_.output.glob("shard-*") for row in pq.read_table(shard).to_pylist()]
    assert sum(len(row["masks"]) for row in stored) == right
    assert {one.name for one in folder.iterdir()} == {"acquired", "prepare_sa1b"}
    assert [one.name for one in path.parent.iterdir()] == ["batch"]
