"""Real runs of real assets: what the asset pages show stays, other old runs go with their events and logs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import event
from sqlalchemy.engine import Engine

from orchestration.housekeeping.dagster_runs import LOG, RUN, DagsterRuns
from orchestration.housekeeping.rules import Verdict
from orchestration.housekeeping.run import clean
from tests.orchestration.housekeeping.ending import clean_and_be_killed, in_days, names, retention, why

MANY = in_days(400)


@dg.asset(check_specs=[dg.AssetCheckSpec("small", asset="model")])
def model() -> dg.MaterializeResult:
    print("trained")
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="small", passed=True)])


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["x", "y"]))
def prepared() -> None:
    print("prepared")


@dg.op
def failing() -> None:
    raise RuntimeError("as it should")


@dg.job
def unlucky() -> None:
    failing()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return tmp_path


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as opened:
        yield opened


def make(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, partition: str | None = None) -> str:
    return dg.materialize([asset], instance=instance, partition_key=partition).run_id


def delete(instance: dg.DagsterInstance, now: float = MANY) -> list[Verdict]:
    return clean(DagsterRuns(instance, retention()), 1.0, now, delete=True)


def run_ids(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def leftovers(home: Path, run_id: str) -> list[Path]:
    return [path for path in home.rglob("*") if run_id in path.name and path.is_file()]


def materializations(instance: dg.DagsterInstance, name: str) -> list[str]:
    records = instance.fetch_materializations(dg.AssetKey(name), limit=100).records
    return [record.run_id for record in records]


def test_the_newest_materialization_of_each_asset_and_partition_stays(
    instance: dg.DagsterInstance, home: Path
) -> None:
    models = [make(instance, model) for _ in range(3)]
    of_x = [make(instance, prepared, "x") for _ in range(2)]
    of_y = make(instance, prepared, "y")
    assert leftovers(home, models[0])
    verdicts = delete(instance)
    assert run_ids(instance) == {models[-1], of_x[-1], of_y}
    assert names(verdicts, RUN) == {*models[:-1], of_x[0]}
    assert why(verdicts, RUN, of_y).startswith("made the newest prepared@y")
    assert materializations(instance, "model") == [models[-1]]
    assert materializations(instance, "prepared") == [of_y, of_x[-1]]
    assert instance.get_materialized_partitions(dg.AssetKey("prepared")) == {"x", "y"}
    latest = instance.get_latest_materialization_event(dg.AssetKey("model"))
    assert latest is not None
    assert latest.run_id == models[-1]
    checked = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [dg.AssetCheckKey(dg.AssetKey("model"), "small")]
    )
    assert len(checked) == 1
    assert leftovers(home, models[0]) == []
    assert len(instance.all_logs(models[-1])) > 5, "a run that stays keeps all its events"
    assert not any(verdict.removed for verdict in delete(instance)), "a second call finds nothing"


def test_logs_go_before_their_run(instance: dg.DagsterInstance, home: Path) -> None:
    run_id = make(instance, model)
    verdicts = delete(instance, in_days(40))
    assert names(verdicts, LOG) == {run_id}
    assert run_ids(instance) == {run_id}
    assert not any(path.suffix in (".out", ".err") for path in leftovers(home.joinpath("storage"), run_id))


def test_the_newest_of_each_job_stays_for_the_sensors_that_ask_it(instance: dg.DagsterInstance) -> None:
    failed = [unlucky.execute_in_process(instance=instance, raise_on_error=False).run_id for _ in range(3)]
    verdicts = delete(instance)
    assert run_ids(instance) == {failed[-1]}
    assert why(verdicts, RUN, failed[-1]) == "the newest"


def test_what_is_going_on_stays_with_the_runs_that_it_tries_again(instance: dg.DagsterInstance) -> None:
    first = unlucky.execute_in_process(instance=instance, raise_on_error=False).run_id
    going_on = create_run_for_test(
        instance,
        job_name="unlucky",
        status=dg.DagsterRunStatus.STARTED,
        parent_run_id=first,
        root_run_id=first,
    ).run_id
    later = unlucky.execute_in_process(instance=instance, raise_on_error=False).run_id
    verdicts = delete(instance)
    assert run_ids(instance) == {first, going_on, later}
    assert why(verdicts, RUN, going_on) == "it is not finished"
    assert why(verdicts, RUN, first) == f"{RUN} {going_on} refers to it"


def test_young_runs_stay(instance: dg.DagsterInstance) -> None:
    runs = {make(instance, model) for _ in range(2)}
    assert not names(delete(instance, in_days(20)), RUN)
    assert run_ids(instance) == runs


def test_what_was_reported_without_a_run_stays(instance: dg.DagsterInstance) -> None:
    """As `alto sync` does for what `dvc repro` has made."""
    instance.report_runless_asset_event(dg.AssetMaterialization("model"))
    make(instance, model)
    instance.report_runless_asset_event(dg.AssetMaterialization("model"))
    delete(instance)
    assert materializations(instance, "model").count("") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "call"),
    [
        ("compute_log_manager", "delete_logs"),
        ("event_log_storage", "delete_events"),
        ("run_storage", "delete_run"),
    ],
)
def test_a_call_that_was_killed_is_finished_by_the_next(
    home: Path, monkeypatch: pytest.MonkeyPatch, part: str, call: str
) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        models = [make(instance, model) for _ in range(3)]
        where = type(getattr(instance, part))

    def opened() -> DagsterRuns:
        return DagsterRuns(dg.DagsterInstance.from_config(str(home)), retention())

    clean_and_be_killed(opened, monkeypatch, where, call, 2, MANY)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert set(materializations(instance, "model")) <= run_ids(instance), "no event of a run that is gone"
        assert models[-1] in materializations(instance, "model")
        delete(instance)
        assert run_ids(instance) == {models[-1]}
        assert [path for run_id in models[:-1] for path in leftovers(home, run_id)] == []


def test_however_many_runs_there_are_the_number_of_queries_is_the_same(instance: dg.DagsterInstance) -> None:
    make(instance, model)
    make(instance, prepared, "x")

    def queries() -> int:
        asked: list[str] = []

        def listen(*arguments: Any) -> None:
            asked.append(arguments[2])

        event.listen(Engine, "before_cursor_execute", listen)
        try:
            clean(DagsterRuns(instance, retention()), 1.0, MANY, delete=False)
        finally:
            event.remove(Engine, "before_cursor_execute", listen)
        return sum("SELECT" in statement for statement in asked)

    before = queries()
    for _ in range(40):
        create_run_for_test(instance, job_name="unlucky", status=dg.DagsterRunStatus.SUCCESS)
    assert queries() == before
