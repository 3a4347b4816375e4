"""The year of the benchmark is one that Dagster could have left, and its measurements run."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._serdes import serialize_value
from dagster_graphql.schema import create_schema
from graphql import parse, validate

from jobs.runner.lineage import Lineage
from orchestration.definitions import build_definitions
from orchestration.ledger_sync import sync_ledger
from tests.benchmarks.page_queries import page_queries
from tests.benchmarks.year import (
    DATABASE,
    Year,
    commands,
    create_project,
    fill,
    pages,
    production_instance,
    shown_pages,
    sizes,
    ticks,
)
from tests.services.postgres import Postgres, postgres, programs

MATERIALIZED = dg.DagsterEventType.ASSET_MATERIALIZATION
YEAR = Year(shards=4, batches=2, runs=24, weeks=2, repeats=1)


def test_queries_of_the_pages_are_valid() -> None:
    schema, queries = create_schema().graphql_schema, page_queries()
    asked = {name for page in shown_pages(["prepare_sa1b"]).values() for name in page}
    assert {name: validate(schema, parse(queries[name])) for name in asked} == dict.fromkeys(asked, [])


@pytest.fixture(scope="module")
def filled(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Lineage, dg.DagsterInstance, Postgres]]:
    try:
        programs()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("year") / "project"
    root.mkdir()
    with postgres((DATABASE,)) as server:
        lineage = create_project(root, YEAR)
        with production_instance(root, server) as instance:
            fill(lineage, instance, server, YEAR)
            yield lineage, instance, server


@pytest.mark.slow
def test_every_week_has_its_runs_with_their_events(
    filled: tuple[Lineage, dg.DagsterInstance, Postgres],
) -> None:
    lineage, instance, _ = filled
    runs = instance.get_runs()
    benchmarks = len(lineage.stage("benchmark").partitions)
    data = YEAR.runs // YEAR.weeks - 3 - benchmarks
    a_week = {
        "retraining": 1,
        "evaluation": benchmarks,
        "reporting": 1,
        "sa1b_data": data,
        "tokenizer_training": 1,
    }
    assert Counter(run.job_name for run in runs) == {job: YEAR.weeks * count for job, count in a_week.items()}
    for run in runs:
        events = instance.all_logs(run.run_id)
        assert {event.run_id for event in events} == {run.run_id}
        assert (run.status is dg.DagsterRunStatus.SUCCESS) == (run.job_name != "tokenizer_training")
        pictures = sum(serialize_value(event).count("data:image/webp") for event in events)
        assert pictures == [event.dagster_event_type for event in events].count(MATERIALIZED)
    retrained = [run.run_id for run in runs if run.job_name == "retraining"]
    shown = instance.fetch_materializations(dg.AssetKey("tokenizer_stage1"), limit=100).records
    assert [record.run_id for record in shown if record.run_id] == retrained
    checks = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("prepare_sa1b"), "contract"), limit=100
    )
    assert {record.run_id for record in checks} >= {run.run_id for run in runs if run.job_name == "sa1b_data"}


@pytest.mark.slow
def test_dagster_is_up_to_date(filled: tuple[Lineage, dg.DagsterInstance, Postgres]) -> None:
    lineage, instance, _ = filled
    assert sync_ledger(lineage.root, instance) == []


@pytest.mark.slow
def test_everything_is_measured(filled: tuple[Lineage, dg.DagsterInstance, Postgres]) -> None:
    lineage, instance, server = filled
    costs = [*commands(lineage.root, 1), *ticks(lineage.root, instance, 1), *pages(lineage.root, 1)]
    named = {cost.what.partition(",")[0] for cost in costs}
    repository = build_definitions(lineage.root).get_repository_def()
    assert named >= {f"`{sensor.name}`" for sensor in repository.sensor_defs}
    assert named >= {f"`{schedule.name}`" for schedule in repository.schedule_defs}
    assert "`event_logs`" in sizes(server)
