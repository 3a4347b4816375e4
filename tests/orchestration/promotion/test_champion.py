"""The champion in a real MLflow registry: commit, repair, rollback, several at once, and a server that is down."""

import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from assets.drift import CHAMPION_DATA_FILE
from data_contracts.errors import InputError
from jobs.benchmark import CHALLENGER as CHALLENGER_SYSTEM
from jobs.benchmarking.results import ADAPTIVE, METRICS_FILE, SAMPLES_FILE, BenchmarkMetrics, read_metrics
from jobs.benchmarking.speed import SPEED_FILE, Speed, Timed
from jobs.benchmarking.vqa import ask_and_score
from jobs.benchmarking.vqa_results import VQA_SAMPLES_FILE
from jobs.runner.changes import Change
from jobs.runner.layout import StageAddress
from jobs.runner.ledger import Recorded
from jobs.runner.lineage import Lineage, Stage
from jobs.runner.registry import CHAMPION
from jobs.runner.run import last_run_folder
from jobs.runner.staleness import StageState
from orchestration.promotion import champion as champion_module
from orchestration.promotion import decision as decisions
from orchestration.promotion.champion import ALTOLLM, CHAMPION_FILE, TOKENIZER, Registry
from orchestration.promotion.table import text_table
from orchestration.report.champion import view_champion
from tests.jobs.benchmark_example import config, stage_context
from tests.jobs.test_benchmark import run_benchmark
from tests.jobs.test_vqa_benchmark import Parrot
from tests.jobs.vqa_data import POPE, write_questions
from tests.orchestration.promotion.answers import change_answers

RULES = """
seed: 7
promotion:
  mode: adaptive
  gains: [giou, mean_length]
  max_loss: {giou: 0.01, malformed: 0.01}
  max_vqa_loss: {pope: 0.05}
  max_slowdown: null
  resamples: 200
  confidence_level: 0.95
"""
SCENES = Path("reports/smoke/benchmark/scenes")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a measured challenger and an MLflow store with two tokenizers and three language models."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        use_store(root, patch)
        output = run_benchmark(root / "scratch", images=20)
        shutil.copytree(output, root / SCENES)
        (root / "infra").mkdir()
        (root / "params.yaml").write_text(RULES)
        client = Registry(root).client
        for model in (TOKENIZER, ALTOLLM):
            client.create_registered_model(model)
        experiment = client.create_experiment("alto", artifact_location=(root / "artifacts").as_uri())
        for model, versions in ((TOKENIZER, ("t1", "t2")), (ALTOLLM, ("m1", "m2", "m3"))):
            for name in versions:
                run = client.create_run(experiment)
                tags = {
                    "data_version": name,
                    "tokenizer_data_version": "t1" if name == "m1" else "t2",
                    "contracts": "passed",
                }
                client.create_model_version(model, f"{root}/{name}", run.info.run_id, tags=tags)
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, whose ledger says that everything is up to date."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    use_store(tmp_path, monkeypatch)
    monkeypatch.setattr(decisions, "read_lineage", lambda root: lineage(root))
    monkeypatch.setattr(decisions, "lineage_state", lambda _: [state("m1")])
    return tmp_path


def use_store(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")


def lineage(root: Path, *benchmarks: str) -> Lineage:
    stage = Stage(
        name="benchmark",
        command="",
        upstream=(),
        upstream_same_partition=(),
        partition_set="benchmark.benchmarks",
        partitions=benchmarks or ("scenes",),
        code=(),
        parameters=(),
    )
    return Lineage(root=root, profile="smoke", stages=(stage,))


def state(
    data_version: str | None, plan: str = "does_not_run", of: str = "altollm_grpo", **others: Any
) -> StageState:
    address = StageAddress.parse(of)
    recorded = (
        Recorded(address=address, data_version=data_version, entry_hash="e", how="unchanged")
        if data_version
        else None
    )
    changes = (Change(kind="code", subject="jobs/x.py", after="changed"),) if plan == "runs" else ()
    return StageState(
        address=address, plan=plan, changes=changes, recorded=recorded, input_versions={}, **others
    )  # type: ignore[arg-type]


def challenge(root: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    Registry(root).client.set_registered_model_alias(ALTOLLM, "challenger", version)
    monkeypatch.setattr(decisions, "lineage_state", lambda _: [state(f"m{version}")])


def champions(root: Path) -> tuple[str | None, str | None, dict]:
    registry = Registry(root)
    versions = [registry.version(model, CHAMPION) for model in (ALTOLLM, TOKENIZER)]
    path = root / CHAMPION_FILE
    altollm, tokenizer = (None if version is None else str(version.version) for version in versions)
    return altollm, tokenizer, json.loads(path.read_text()) if path.exists() else {}


def assert_consistent(root: Path, altollm: str, tokenizer: str) -> None:
    assert champions(root) == (
        altollm,
        tokenizer,
        {
            ALTOLLM: {"version": altollm, "data_version": f"m{altollm}"},
            TOKENIZER: {"version": tokenizer, "data_version": f"t{tokenizer}"},
        },
    )


def crown_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    challenge(root, monkeypatch, "1")
    assert decisions.promote(root).better


def test_a_first_champion_beats_the_baselines(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crown_first(root, monkeypatch)
    assert_consistent(root, "1", "1")


def test_better_is_promoted_and_equal_and_worse_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown_first(root, monkeypatch)
    challenge(root, monkeypatch, "2")
    assert not decisions.promote(root).better
    assert_consistent(root, "1", "1")
    change_answers(root / SCENES / SAMPLES_FILE, 0.3)
    assert not decisions.promote(root).better
    assert_consistent(root, "1", "1")
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)
    assert decisions.promote(root).better
    assert_consistent(root, "2", "2")


def test_the_champion_is_not_promoted_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crown_first(root, monkeypatch)
    assert not decisions.promote(root).better
    assert_consistent(root, "1", "1")


def test_deciding_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    challenge(root, monkeypatch, "1")
    assert decisions.decide(root).better
    assert champions(root) == (None, None, {})


@pytest.mark.parametrize(
    ("changed", "rule"), [(state("m9"), "is the registered challenger"), (state("m1", "runs"), "up to date")]
)
def test_what_is_not_recorded_and_current_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, changed: StageState, rule: str
) -> None:
    challenge(root, monkeypatch, "1")
    monkeypatch.setattr(decisions, "lineage_state", lambda _: [changed])
    decision = decisions.promote(root)
    assert [finding.rule for finding in decision.findings if not finding.passed] == [rule]
    assert champions(root) == (None, None, {})


BATCH = "prepare_sa1b@batch_007"


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        (state(None, "runs", BATCH, refused="contract: 7 of 9 rows"), "refused: contract: 7 of 9 rows"),
        (state("d1", "runs", BATCH, refused="contract: 7 of 9 rows"), "refused: contract: 7 of 9 rows"),
        (state(None, "runs", BATCH), "never prepared"),
        (state("d1", "runs", BATCH), None),
    ],
    ids=["refused", "newest version refused", "never prepared", "stale"],
)
def test_a_model_is_held_to_the_data_it_was_trained_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, batch: StageState, why: str | None
) -> None:
    """What was not trained on is named, and does not stand in the way; what is stale does."""
    challenge(root, monkeypatch, "1")
    follows = state("m0", "runs_if_changed", "tokenizer_stage1", waits_for=(batch.address,))
    model = state("m1", "runs_if_changed", waits_for=(follows.address,))
    monkeypatch.setattr(decisions, "lineage_state", lambda _: [batch, follows, model])
    decision = decisions.promote(root)
    if why is None:
        failed = [(one.subject, one.rule) for one in decision.findings if not one.passed]
        assert failed == [(BATCH, "up to date"), ("altollm_grpo", "up to date")]
        assert champions(root) == (None, None, {})
        return
    assert decision.better
    assert text_table(decision.findings).splitlines()[1].split() == [
        *("left", "out", BATCH),
        *f"listed, and the challenger was not trained on it {why}".split(),
    ]
    assert decision.summary.endswith(f"; not trained on {BATCH} ({why})")
    assert_consistent(root, "1", "1")


def test_part_of_a_benchmark_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    challenge(root, monkeypatch, "1")
    path = root / SCENES / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"images": 5}))
    assert [finding.rule for finding in decisions.decide(root).findings if not finding.passed] == [
        "the whole benchmark"
    ]


WRITES = (
    ("log_artifact", 1),  # the samples
    ("log_text", 1),
    ("set_model_version_tag", 1),
    ("set_registered_model_alias", 1),  # of the model: the one that decides
    ("set_registered_model_alias", 2),  # of its mask tokenizer
    ("write_whole", 1),  # of what is repaired before anything is decided
    ("write_whole", 2),  # of the tracked file
)


@pytest.mark.slow
@pytest.mark.parametrize(("write", "time"), WRITES)
def test_a_kill_between_any_two_steps_is_repaired_by_the_next_call(
    root: Path, monkeypatch: pytest.MonkeyPatch, write: str, time: int
) -> None:
    crown_first(root, monkeypatch)
    (root / CHAMPION_DATA_FILE).unlink()  # so that there is something to repair first
    challenge(root, monkeypatch, "2")
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)
    with monkeypatch.context() as patch:
        where = champion_module if write == "write_whole" else MlflowClient
        patch.setattr(where, write, killing(getattr(where, write), time))
        promotion = multiprocessing.get_context("fork").Process(target=decisions.promote, args=(root,))
        promotion.start()
        promotion.join()
    assert promotion.exitcode == -signal.SIGKILL
    now, _, _ = champions(root)
    assert now in ("1", "2")
    decisions.promote(root)
    assert_consistent(root, "2", "2")
    assert decisions.roll_back(root) == "1"
    assert_consistent(root, "1", "1")


def killing(real: Callable[..., object], time: int) -> Callable[..., object]:
    """`real`, after whose call number `time` the process is killed."""
    calls = itertools.count(1)

    def call(*arguments: object, **keywords: object) -> object:
        result = real(*arguments, **keywords)
        if next(calls) == time:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def test_what_was_rolled_back_is_not_promoted_again_by_itself(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown_first(root, monkeypatch)
    challenge(root, monkeypatch, "2")
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)
    assert decisions.promote(root).better
    decisions.roll_back(root)
    again = decisions.promote(root)
    assert [finding.rule for finding in again.findings if not finding.passed] == ["was not rolled back"]
    assert_consistent(root, "1", "1")
    Registry(root).client.delete_model_version_tag(ALTOLLM, "2", "rolled_back")
    assert decisions.promote(root).better


def test_broken_contracts_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    challenge(root, monkeypatch, "1")
    reason = "prepare_referring@refcoco: 3 of 9 rows quarantined"
    Registry(root).client.set_model_version_tag(ALTOLLM, "1", "contracts", reason)
    refused = decisions.promote(root)
    assert [finding.found for finding in refused.findings if not finding.passed] == [reason]
    assert champions(root) == (None, None, {})


def test_a_promotion_from_another_machine_that_came_first_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a file system does not keep another machine out; what is in the registry is looked at again."""
    crown_first(root, monkeypatch)
    challenge(root, monkeypatch, "2")
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)
    decide = decisions._decide

    def overtaken(*arguments: Any) -> decisions.Decision:
        decision = decide(*arguments)
        Registry(root).client.set_registered_model_alias(ALTOLLM, CHAMPION, "3")
        return decision

    with monkeypatch.context() as patch:
        patch.setattr(decisions, "_decide", overtaken)
        with pytest.raises(InputError, match="another promotion has made version 3 champion meanwhile"):
            decisions.promote(root)
    challenge(root, monkeypatch, "3")
    decisions.promote(root)
    assert_consistent(root, "3", "2")


def test_champion_and_challenger_are_compared_in_words_and_in_speed_too(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "read_lineage", lambda root: lineage(root, "scenes", "pope"))
    (root / "params.yaml").write_text(RULES.replace("max_slowdown: null", "max_slowdown: 0.5"))
    pope = stage_context(root / "asked", "benchmark", "pope")
    questions = write_questions(root / "questions", POPE)
    ask_and_score(questions, {CHALLENGER_SYSTEM: Parrot(lambda _: "yes")}, 4, config(), pope)
    shutil.copytree(pope.output, root / SCENES.parent / "pope")
    answers = root / SCENES.parent / "pope" / VQA_SAMPLES_FILE
    right = pq.read_table(answers)
    keep_speed(root, 1.0)
    crown_first(root, monkeypatch)

    challenge(root, monkeypatch, "2")
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)
    keep_speed(root, 1.6)
    column = right.schema.get_field_index("score")
    pq.write_table(
        right.set_column(column, right.schema.field(column), pa.array([0.0] * len(right))), answers
    )
    refused = decisions.promote(root)
    assert {(one.subject, one.rule, one.found) for one in refused.findings if not one.passed} == {
        ("pope", "share of right answers worse by at most 0.05", "-0.500 [-0.500, -0.500]"),
        ("scenes", "seconds an answer at most 1.5 times the champion's", "1.60 times"),
    }
    assert_consistent(root, "1", "1")

    pq.write_table(right, answers)
    keep_speed(root, 1.4)
    assert decisions.promote(root).better
    assert_consistent(root, "2", "2")


def keep_speed(root: Path, seconds: float) -> None:
    """As if the model had taken that long for its answers as they are now."""
    timed = Timed(
        machine="GPU",
        system=CHALLENGER_SYSTEM,
        mode=ADAPTIVE,
        answers=9,
        mask_tokens=50,
        seconds=seconds,
        processor_seconds=1.0,
    )
    folder = last_run_folder(root, StageAddress("benchmark", "scenes"))
    folder.mkdir(parents=True, exist_ok=True)
    speed = Speed.of(root / SCENES / SAMPLES_FILE, [[timed]])
    (folder / SPEED_FILE).write_text(speed.model_dump_json())


def test_a_registry_that_goes_down_in_between_changes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown_first(root, monkeypatch)
    challenge(root, monkeypatch, "2")
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)

    def down(*_: object) -> None:
        raise MlflowException("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "list_artifacts", down)
        with pytest.raises(InputError, match="does not answer, so nothing is decided"):
            decisions.promote(root)
    assert (root / CHAMPION_DATA_FILE).exists()
    assert_consistent(root, "1", "1")


def test_rollback_gives_the_title_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crown_first(root, monkeypatch)
    with pytest.raises(InputError, match="no previous champion"):
        decisions.roll_back(root)
    challenge(root, monkeypatch, "3")
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)
    decisions.promote(root)
    assert_consistent(root, "3", "2")
    assert decisions.roll_back(root) == "1"
    assert_consistent(root, "1", "1")


def test_two_promotions_at_once_end_in_one_state(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crown_first(root, monkeypatch)
    challenge(root, monkeypatch, "2")
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    both = [fork.Process(target=lambda: queue.put(decisions.promote(root).better)) for _ in range(2)]
    for process in both:
        process.start()
    outcomes = sorted(queue.get(timeout=60) for _ in both)
    for process in both:
        process.join()
    assert outcomes == [False, True]
    assert_consistent(root, "2", "2")


def test_a_registry_that_is_down_decides_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crown_first(root, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(InputError, match="does not answer, so nothing is decided"):
            decisions.promote(root)
    assert_consistent(root, "1", "1")


def test_unknown_rules_are_named(root: Path) -> None:
    (root / "params.yaml").write_text(RULES.replace("gains: [giou", "gains: [gious"))
    with pytest.raises(InputError, match=r"params.yaml: promotion\.gains\.0"):
        decisions.decide(root)


def test_samples_kept_with_the_champion_are_those_it_was_crowned_with(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pd.read_parquet(root / SCENES / SAMPLES_FILE)
    crown_first(root, monkeypatch)
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)
    registry = Registry(root)
    content = registry.kept(registry.version(ALTOLLM, CHAMPION), "scenes", SAMPLES_FILE)
    assert content is not None
    kept = pd.read_parquet(io.BytesIO(content))
    assert kept["intersection"].tolist() == before["intersection"].tolist()


def test_data_a_champion_was_trained_on_is_pinned_and_comes_back_with_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown_first(root, monkeypatch)
    pinned = root / CHAMPION_DATA_FILE
    first = pinned.read_text()
    assert json.loads(first) == {"profile": "smoke", "partitions": {}}
    batch = StageAddress("prepare_sa1b", "batch_000")
    folder = root / "data/smoke/prepare_sa1b/batch_000"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"figures": {}, "checks": []}))
    statistics = {"distributions": {}, "shares": {"no_target": 0.25}, "categories": {}}
    (folder / "statistics.json").write_text(json.dumps(statistics))
    challenge(root, monkeypatch, "2")
    data = state("d7", of=str(batch))
    monkeypatch.setattr(decisions, "lineage_state", lambda _: [data, state("m2")])
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)
    assert decisions.promote(root).better
    assert json.loads(pinned.read_text())["partitions"] == {
        "prepare_sa1b@batch_000": {"data_version": "d7", "statistics": statistics}
    }
    decisions.roll_back(root)
    assert pinned.read_text() == first


def test_the_report_shows_the_champion_as_it_was_measured(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    challenge(root, monkeypatch, "1")
    decisions.promote(root)
    measured = read_metrics(root / SCENES / METRICS_FILE, BenchmarkMetrics).find(CHALLENGER_SYSTEM, ADAPTIVE)
    challenge(root, monkeypatch, "2")
    change_answers(root / SCENES / SAMPLES_FILE, 0.1)
    view = view_champion(lineage(root))
    assert view.version == "1"
    (shown,) = (one for one in view.rows["scenes"] if one.mode == ADAPTIVE)
    assert shown.system == CHALLENGER_SYSTEM
    assert measured is not None
    assert shown.giou is not None
    assert measured.giou is not None
    assert shown.giou.value == pytest.approx(measured.giou.value)
    assert view.decision is not None
    assert not view.decision.better


def test_a_registry_that_is_down_is_told_in_the_report(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    view = view_champion(lineage(root))
    assert view.version is None
    assert "does not answer" in view.problem


def test_each_decision_is_noted_once_with_its_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crown_first(root, monkeypatch)
    decisions.promote(root)  # the champion against itself: nothing is decided
    challenge(root, monkeypatch, "2")
    change_answers(root / SCENES / SAMPLES_FILE, 0.3)
    decisions.promote(root)
    refused = noted(root)
    decisions.promote(root)
    assert noted(root) == refused  # the same refusal, at the same time
    change_answers(root / SCENES / SAMPLES_FILE, 0.99)
    decisions.promote(root)
    decisions.roll_back(root)
    found = {key: reason for key, (_, reason) in noted(root).items()}
    assert found.keys() == {("1", "promoted"), ("2", "refused"), ("2", "promoted"), ("2", "rolled_back")}
    assert found["1", "promoted"].startswith("altollm 1 is better than the baselines")
    assert found["2", "refused"].startswith(
        "altollm 2 is not shown to be better than champion 1; scenes giou"
    )
    assert found["2", "promoted"] == "altollm 2 is better than champion 1"
    assert found["2", "rolled_back"] == "altollm 1 is champion again, instead of 2"


def noted(root: Path) -> dict[tuple[str, str], tuple[str, str]]:
    return {(one.version, one.what): (one.time, one.reason) for one in Registry(root).decisions()}
