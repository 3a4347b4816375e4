"""A year on PostgreSQL: loading the definitions, ticks, pages and plan after 52 retrainings and 5,000 runs.

A project of 1,000 shards with stand-in outputs is built first, and a PostgreSQL of its own is filled with what a year
leaves there (minutes); nothing in it is ever computed.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import dagster as dg
import numpy as np
import yaml
from dagster._core.definitions.run_status_sensor_definition import (
    RunStatusSensorCursor,
    RunStatusSensorDefinition,
)
from PIL import Image
from sqlalchemy import create_engine, text

from jobs.runner.layout import output_folder
from jobs.runner.lineage import Lineage, read_lineage
from orchestration.definitions import build_definitions
from orchestration.ledger_sync import sync_ledger
from orchestration.partitions import add_missing_batches
from tests.benchmarks import scale_project
from tests.benchmarks.costs import Cost, cost
from tests.benchmarks.harness import machine, publish, table
from tests.benchmarks.pages import Page, asset_pages, load, webserver
from tests.benchmarks.year_events import write_year
from tests.lineage.project import environment
from tests.services.postgres import PASSWORD, USER, Postgres, postgres

DATABASE = "dagster"
ASSET, BATCH = "prepare_sa1b", "batch_000"
NEIGHBOURS = ("acquire_sa1b", "tokenizer_stage1", "tokenizer_stage1_5", "tokenizer_benchmark")
LOAD = "from orchestration.definitions import defs; defs.get_repository_def().load_all_definitions()"
LOADING, TICK, PAGE, PLAN, HOUSEKEEPING = 10, 5, 3, 5, 60  # targets, seconds
AUTOMATION = "default_automation_condition_sensor"


@dataclass(frozen=True, kw_only=True)
class Year:
    """repeats: of each measurement."""

    shards: int = 1000
    batches: int = 99
    runs: int = 5000
    weeks: int = 52
    repeats: int = 3


def create_project(root: Path, year: Year) -> Lineage:
    """As `scale_project`, with a picture in every output: they are what makes events large."""
    lineage = scale_project.create(root, year.shards, year.batches)
    picture = sample_picture()
    for address in lineage.addresses:
        folder = root / output_folder(lineage.profile, address) / "pictures"
        folder.mkdir()
        (folder / "samples.png").write_bytes(picture)
    scale_project.record_ledger(lineage)
    commit_weeks(root, year.weeks)
    return lineage


def commit_weeks(root: Path, weeks: int) -> None:
    """`dvc.lock` in another version each week: housekeeping reads them all."""
    path = root / "dvc.lock"
    lock = path.read_text()
    author = ("-c", "user.name=Year", "-c", "user.email=year@localhost")
    for week in range(weeks, 0, -1):
        path.write_text(f"{lock}# {week - 1} weeks ago\n" if week > 1 else lock)
        subprocess.run(["git", "add", "dvc.lock"], cwd=root, check=True)
        subprocess.run(["git", *author, "commit", "-qm", "A week"], cwd=root, check=True)


def sample_picture() -> bytes:
    """As large in an event as real sample tiles are, about 60 kB."""
    noise = np.random.default_rng(0).normal(0, 1, (608, 720, 3))
    coarse = np.kron(np.random.default_rng(1).uniform(40, 215, (38, 45, 3)), np.ones((16, 16, 1)))
    buffer = BytesIO()
    Image.fromarray((coarse + 12 * noise).clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


@contextmanager
def production_instance(root: Path, server: Postgres) -> Iterator[dg.DagsterInstance]:
    """Dagster as deployed, without a bucket for logs; processes started meanwhile use it, too."""
    home = root / ".work" / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load((root / "infra" / "dagster" / "production.yaml").read_text())
    del settings["compute_logs"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    variables = {
        "DAGSTER_HOME": str(home),
        "DAGSTER_POSTGRES_HOST": "127.0.0.1",
        "DAGSTER_POSTGRES_PORT": str(server.port),
        "DAGSTER_POSTGRES_USER": USER,
        "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
        "DAGSTER_POSTGRES_DB": DATABASE,
    }
    with patch.dict(os.environ, variables), chdir(root), dg.DagsterInstance.get() as instance:
        yield instance


def fill(lineage: Lineage, instance: dg.DagsterInstance, server: Postgres, year: Year) -> None:
    # One connection for all events instead of one for each: this is how Dagster's webserver has it.
    instance.optimize_for_webserver(statement_timeout=600_000, pool_recycle=3600, max_overflow=20)
    add_missing_batches(lineage.root, instance)
    definitions = build_definitions(lineage.root)
    write_year(lineage, definitions, instance, server.url(DATABASE), year.runs, year.weeks)
    sync_ledger(lineage.root, instance)


def commands(root: Path, repeats: int) -> Iterator[Cost]:
    """What runs in a process of its own."""

    def python(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run(
            [sys.executable, *arguments], cwd=root, env=environment(root), check=True, capture_output=True
        )

    yield cost("load the definitions, from a cold start", python("-c", LOAD), LOADING, repeats)
    yield cost("`alto plan`", python("-m", "orchestration.cli", "plan"), PLAN, repeats)
    yield cost(
        "`alto housekeeping`", python("-m", "orchestration.cli", "housekeeping"), HOUSEKEEPING, repeats
    )


def ticks(root: Path, instance: dg.DagsterInstance, repeats: int) -> Iterator[Cost]:
    """Of each sensor, when all is as at the last tick, and at its first tick or when there is something to look at."""
    definitions = build_definitions(root)
    repository = definitions.get_repository_def()
    for sensor in repository.sensor_defs:
        if sensor.name == AUTOMATION:
            yield from automation_ticks(definitions, instance, repeats)
            continue
        looks = sensor_tick(repository, sensor, instance, first_cursor(sensor, instance))
        seen = looks()
        idle = sensor_tick(repository, sensor, instance, seen)
        yield cost(f"`{sensor.name}`, nothing new", idle, TICK, repeats)
        yield cost(f"`{sensor.name}`, looks at everything", looks, TICK, repeats)
    for schedule in repository.schedule_defs:
        context = dg.build_schedule_context(
            instance=instance, repository_def=repository, scheduled_execution_time=datetime.now(UTC)
        )
        yield cost(f"`{schedule.name}`", partial(schedule.evaluate_tick, context), TICK, repeats)


def sensor_tick(
    repository: dg.RepositoryDefinition,
    sensor: dg.SensorDefinition,
    instance: dg.DagsterInstance,
    cursor: str | None,
) -> Callable[[], str | None]:
    """Gives the cursor that it leaves."""

    def tick() -> str | None:
        context = dg.build_sensor_context(
            instance=instance, cursor=cursor, repository_def=repository, sensor_name=sensor.name
        )
        return sensor.evaluate_tick(context).cursor

    return tick


def first_cursor(sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> str | None:
    """None, as at the first tick; of sensors that follow runs, before the last run that ended."""
    if not isinstance(sensor, RunStatusSensorDefinition):
        return None
    (last,) = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_SUCCESS, limit=1).records
    return RunStatusSensorCursor(record_id=last.storage_id - 1).to_json()


def automation_ticks(
    definitions: dg.Definitions, instance: dg.DagsterInstance, repeats: int
) -> Iterator[Cost]:
    first = dg.evaluate_automation_conditions(definitions, instance)

    def again() -> object:
        return dg.evaluate_automation_conditions(definitions, instance, cursor=first.cursor)

    yield cost(f"`{AUTOMATION}`, nothing new", again, TICK, repeats)
    yield cost(
        f"`{AUTOMATION}`, looks at everything",
        lambda: dg.evaluate_automation_conditions(definitions, instance),
        TICK,
        repeats,
    )


def shown_pages(assets: Sequence[str]) -> dict[str, Page]:
    """Title -> queries. assets: all of them."""
    key = {"assetKey": {"path": [ASSET]}}
    return {
        **asset_pages(ASSET, NEIGHBOURS, assets),
        "its events": {
            "RecentAssetEventsQuery": key
            | {"eventTypeSelectors": ["MATERIALIZATION", "OBSERVATION"], "limit": 50}
        },
        "one partition with all its events": {"AssetPartitionDetailQuery": key | {"partitionKey": BATCH}},
        "runs page": {
            "RunsFeedQuery": {"view": "ROOTS", "filter": {}, "limit": 30},
            "RunFeedTabsCountQuery": {
                "queuedFilter": {"statuses": ["QUEUED"]},
                "inProgressFilter": {"statuses": ["STARTED", "STARTING", "CANCELING"]},
                "view": "ROOTS",
            },
        },
    }


def pages(root: Path, repeats: int) -> Iterator[Cost]:
    """The first load after the webserver's start, and the median of the next ones."""
    with webserver(root) as address:
        for title, page in shown_pages([stage.name for stage in read_lineage(root).stages]).items():
            yield Cost(what=f"{title}, first", wall=load(address, page), cpu=float("nan"), target=PAGE)
            later = cost("", partial(load, address, page), repeats=repeats)
            yield Cost(what=f"{title}, again", wall=later.wall, cpu=float("nan"), target=PAGE)


def sizes(server: Postgres) -> str:
    """What the database takes, by table."""
    engine = create_engine(server.url(DATABASE))
    with engine.connect() as database:
        rows = database.execute(
            text(
                "SELECT relname, pg_total_relation_size(oid), reltuples FROM pg_class"
                " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
                " ORDER BY 2 DESC LIMIT 6"
            )
        ).all()
        (total,) = database.execute(text("SELECT pg_database_size(current_database())")).one()
    engine.dispose()
    lines = [(f"`{name}`", f"{count:,.0f}", f"{size / 1e6:,.0f}") for name, size, count in rows]
    return table(("table", "rows", "MB"), [*lines, ("**database**", "", f"{total / 1e6:,.0f}")])


def measure(root: Path, year: Year) -> str:
    with postgres((DATABASE,)) as server:
        lineage = create_project(root, year)
        with production_instance(root, server) as instance:
            fill(lineage, instance, server, year)
            return report(root, instance, server, year)


def report(root: Path, instance: dg.DagsterInstance, server: Postgres, year: Year) -> str:
    costs = [
        *commands(root, year.repeats),
        *ticks(root, instance, year.repeats),
        *pages(root, year.repeats),
    ]
    runs = year.runs // year.weeks * year.weeks
    what = f"{year.shards} shards in {year.batches} batches, {year.weeks} retrainings, {runs} runs"
    busy = f"{os.getloadavg()[0]:.1f} processes wanted its {os.cpu_count()} cores"
    rows = [one.row() for one in costs]
    costs_table = table(("what", "seconds", "of processor", "target"), rows).replace("nan", "–")
    return f"{what}; medians of {year.repeats} ({machine()}; {busy}):\n\n{costs_table}\n\n{sizes(server)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.year", description=__doc__)
    default = Year()
    parser.add_argument("--shards", type=int, default=default.shards)
    parser.add_argument("--batches", type=int, default=default.batches)
    parser.add_argument("--runs", type=int, default=default.runs)
    parser.add_argument("--weeks", type=int, default=default.weeks, help="with a retraining each")
    parser.add_argument("--repeats", type=int, default=default.repeats)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = vars(parser.parse_args())
    write = options.pop("write")
    with TemporaryDirectory() as temporary:
        root = Path(temporary) / "project"
        root.mkdir()
        publish("year", measure(root, Year(**options)), write)


if __name__ == "__main__":
    main()
