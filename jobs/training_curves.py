"""The curves of a training stage as a table in its output, for the report.

They are as repeatable as the weights: figures per step, no times. What was logged before a kill and again after the
resume counts once.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.runner.context import StageContext

CURVES_FILE = "curves.parquet"
STEP = "step"


def save_curve_table(context: StageContext) -> None:
    """`curves.parquet`: a row a log point; `step` counts finished steps. Null where a figure was not logged there."""
    points = list(context.metric_log.read())
    names = sorted({name for point in points for name in point.values})
    schema = pa.schema([(STEP, pa.int64()), *((name, pa.float64()) for name in names)])
    rows = [{STEP: point.step, **point.values} for point in points]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), context.output / CURVES_FILE)
