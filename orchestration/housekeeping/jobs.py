"""Housekeeping in Dagster: a job that lists or deletes, as infra/retention.yaml says, and its schedule."""

from pathlib import Path

import dagster as dg

from data_contracts.errors import InputError
from orchestration.housekeeping.settings import Retention, read_retention


def housekeeping_job(root: Path) -> dg.JobDefinition:
    @dg.op
    def look_and_delete(context: dg.OpExecutionContext) -> dg.Output[str]:
        # What it looks with takes seconds to import, and every run loads this module.
        from orchestration.housekeeping.run import keep_house
        from orchestration.housekeeping.table import markdown_table, text_table

        try:
            table = keep_house(root, context.instance, delete=read_retention(root).delete)
        except InputError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(text_table(table))
        metadata: dict[str, dg.MetadataValue | str | int] = {
            "table": dg.MetadataValue.md(markdown_table(table)),
            "summary": table.summary,
            "things": table.removed_number,
            "bytes": table.removed_bytes,
        }
        if table.left_out:
            left_out = "; ".join(table.left_out)
            raise dg.Failure(f"{table.summary}; left out: {left_out}", metadata, allow_retries=False)
        return dg.Output(table.summary, metadata=metadata)

    @dg.job(
        name="housekeeping",
        description="Lists what is old and that nothing refers to; deletes it where infra/retention.yaml says so.",
        executor_def=dg.in_process_executor,
    )
    def housekeeping() -> None:
        look_and_delete()

    return housekeeping


def housekeeping_schedule(job: dg.JobDefinition, retention: Retention) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name="housekeeping",
        job=job,
        cron_schedule=retention.cron,
        execution_timezone=retention.time_zone,
        description=job.description,
    )
