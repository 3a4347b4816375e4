"""Which failed runs are tried again."""

import time
from collections.abc import Iterator

import dagster as dg
import pytest

from assets.stage_asset import FINAL_TAG
from orchestration.automation.retrying import ATTEMPT_TAG, PARTITION_TAG, due
from orchestration.automation.settings import Retrying

SETTINGS = Retrying(times=2, after_minutes=60)
FAILED, SUCCEEDED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS


@dg.op
def nothing() -> None:
    pass


@dg.job
def evaluation() -> None:
    nothing()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


def run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> str:
    names = {"partition": PARTITION_TAG, "attempt": ATTEMPT_TAG, "final": FINAL_TAG}
    named = {names[name]: value for name, value in tags.items()}
    return instance.create_run_for_job(evaluation, status=status, tags=named).run_id


def requests(instance: dg.DagsterInstance, later: float = 3700) -> list[dg.RunRequest]:
    """What is asked for so many seconds from now."""
    return list(due(instance, ["evaluation"], SETTINGS, time.time() + later))


def test_only_the_partition_that_failed_is_tried_again(instance: dg.DagsterInstance) -> None:
    run(instance, SUCCEEDED, partition="a")
    failed = run(instance, FAILED, partition="b")
    run(instance, FAILED, partition="c")
    run(instance, SUCCEEDED, partition="c")
    (request,) = requests(instance)
    assert (request.run_key, request.job_name, request.partition_key) == (failed, "evaluation", "b")
    assert request.tags[ATTEMPT_TAG] == "2"
    assert requests(instance, later=0) == []


@pytest.mark.parametrize(
    ("tags", "tried"), [({"attempt": "2"}, 1), ({"attempt": "3"}, 0), ({"final": "yes"}, 0)]
)
def test_not_for_ever_and_not_what_was_refused(
    instance: dg.DagsterInstance, tags: dict[str, str], tried: int
) -> None:
    run(instance, FAILED, **tags)
    assert len(requests(instance)) == tried


def test_a_run_under_way_is_left_alone(instance: dg.DagsterInstance) -> None:
    run(instance, FAILED)
    run(instance, dg.DagsterRunStatus.STARTED)
    assert requests(instance) == []
