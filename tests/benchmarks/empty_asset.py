"""A code location with one asset that does nothing: what Dagster itself costs (launch_overhead.py)."""

import dagster as dg

FIRST_LINE = "the empty asset has begun"


@dg.asset
def empty() -> None:
    print(FIRST_LINE, flush=True)


defs = dg.Definitions(assets=[empty], executor=dg.in_process_executor)  # as ours
