"""Which samples people look at: the extremes of the challenger's answers, and the ordinary ones."""

import pandas as pd
import pyarrow as pa

from alto_models.data.shards import ShardRows
from jobs.benchmarking.results import GALLERY_SCHEMA, SAMPLES_SCHEMA
from jobs.benchmarking.scoring import SAMPLE_KEY


def select_gallery(samples: pa.Table, rows: ShardRows, system: str, mode: str, shown: int) -> pa.Table:
    """Table of `GALLERY_SCHEMA`: for each reason up to `shown` samples of one run, no image twice."""
    run = samples.to_pandas().query("system == @system and mode == @mode and not no_target")
    with_codes = run[run["length"] > 0]
    typical = run.assign(distance=(run["iou"] - run["iou"].median()).abs())
    ranked = {
        "best": run.sort_values(["iou", *SAMPLE_KEY], ascending=[False, True, True, True]),
        "typical": typical.sort_values(["distance", *SAMPLE_KEY]),
        "worst": run.sort_values(["iou", *SAMPLE_KEY]),
        "longest": with_codes.sort_values(["length", *SAMPLE_KEY], ascending=[False, True, True, True]),
        "shortest": with_codes.sort_values(["length", *SAMPLE_KEY]),
    }
    row_of_image = {rows.row(index, ["image_id"])["image_id"]: index for index in range(len(rows))}
    found = []
    for reason, candidates in ranked.items():
        for rank, index in enumerate(_first_of_each_image(candidates, shown)):
            sample = samples.slice(index, 1).to_pylist()[0]
            image = rows.row(row_of_image[sample["image_id"]], ["image"])["image"]
            found.append(
                {
                    "image_id": sample["image_id"],
                    "image": image,
                    "reason": reason,
                    "rank": rank,
                    "sample": {name: sample[name] for name in SAMPLES_SCHEMA.names},
                }
            )
    return pa.Table.from_pylist(found, schema=GALLERY_SCHEMA)


def _first_of_each_image(candidates: pd.DataFrame, shown: int) -> list[int]:
    return [int(index) for index in candidates.drop_duplicates("image_id").index[:shown]]
