"""The champion in a real MLflow registry: commit, repair, rollback, several at once, and a server that is down."""

import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from assets.drift import CHAMPION_DATA_FILE
from data_contracts.errors import InputError
from jobs.benchmark import CHALLENGER as CHALLENGER_SYSTEM
from jobs.benchmarking.results import ADAPTIVE, SAMPLES_FILE
from jobs.runner.layout import StageAddress
from jobs.runner.ledger import Recorded
from jobs.runner.lineage import Lineage, Stage
from jobs.runner.registry import CHAMPION
from jobs.runner.staleness import StageState
from orchestration.promotion import decision as decisions
from orchestration.promotion.champion import ALTOLLM, CHAMPION_FILE, TOKENIZER, Registry
from tests.jobs.test_benchmark import run_benchmark

RULES = """
promotion:
  mode: adaptive
  gains: [giou, mean_length]
  max_loss: {giou: 0.01, malformed: 0.01}
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
                tags = {"data_version": name, "tokenizer_data_version": "t1" if name == "m1" else "t2"}
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


def lineage(root: Path) -> Lineage:
    stage = Stage(
        name="benchmark",
        command="",
        upstream=(),
        upstream_same_partition=(),
        partition_set="benchmark.benchmarks",
        partitions=("scenes",),
        code=(),
        parameters=(),
    )
    return Lineage(root=root, profile="smoke", stages=(stage,))


def state(data_version: str, plan: str = "does_not_run") -> StageState:
    address = StageAddress("altollm_grpo")
    recorded = Recorded(address=address, data_version=data_version, entry_hash="e", how="unchanged")
    return StageState(address=address, plan=plan, recorded=recorded, input_versions={})  # type: ignore[arg-type]


def challenge(root: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    Registry(root).client.set_registered_model_alias(ALTOLLM, "challenger", version)
    monkeypatch.setattr(decisions, "lineage_state", lambda _: [state(f"m{version}")])


def change_answers(root: Path, iou: float) -> None:
    """As if the model at hand answered with masks of `iou` wherever there is a target."""
    path = root / SCENES / SAMPLES_FILE
    table = pq.read_table(path)
    frame = table.to_pandas()
    mine = (frame["system"] == CHALLENGER_SYSTEM) & (frame["mode"] == ADAPTIVE) & ~frame["no_target"]
    frame.loc[mine, "intersection"] = (frame.loc[mine, "union"] * iou).round().astype(int)
    pq.write_table(table.from_pandas(frame, schema=table.schema), path)


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
    change_answers(root, 0.3)
    assert not decisions.promote(root).better
    assert_consistent(root, "1", "1")
    change_answers(root, 0.99)
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


def test_part_of_a_benchmark_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    challenge(root, monkeypatch, "1")
    path = root / SCENES / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"images": 5}))
    assert [finding.rule for finding in decisions.decide(root).findings if not finding.passed] == [
        "the whole benchmark"
    ]


@pytest.mark.parametrize("step", ["set_model_version_tag", "set_registered_model_alias"])
def test_a_kill_between_the_steps_is_repaired_by_the_next_call(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    crown_first(root, monkeypatch)
    challenge(root, monkeypatch, "2")
    change_answers(root, 0.99)

    from mlflow import MlflowClient

    real = getattr(MlflowClient, step)

    def then_die(*arguments: object, **keywords: object) -> None:
        real(*arguments, **keywords)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, then_die)
        with pytest.raises(KeyboardInterrupt):
            decisions.promote(root)
    decisions.promote(root)
    assert_consistent(root, "2", "2")
    assert decisions.roll_back(root) == "1"
    assert_consistent(root, "1", "1")


def test_rollback_gives_the_title_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crown_first(root, monkeypatch)
    with pytest.raises(InputError, match="no previous champion"):
        decisions.roll_back(root)
    challenge(root, monkeypatch, "3")
    change_answers(root, 0.99)
    decisions.promote(root)
    assert_consistent(root, "3", "2")
    assert decisions.roll_back(root) == "1"
    assert_consistent(root, "1", "1")


def test_two_promotions_at_once_end_in_one_state(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crown_first(root, monkeypatch)
    challenge(root, monkeypatch, "2")
    change_answers(root, 0.99)
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
    change_answers(root, 0.99)
    registry = Registry(root)
    kept = registry.samples(registry.version(ALTOLLM, CHAMPION), "scenes")
    assert kept is not None
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
    data = replace(state("d7"), address=batch)
    monkeypatch.setattr(decisions, "lineage_state", lambda _: [data, state("m2")])
    change_answers(root, 0.99)
    assert decisions.promote(root).better
    assert json.loads(pinned.read_text())["partitions"] == {
        "prepare_sa1b@batch_000": {"data_version": "d7", "statistics": statistics}
    }
    decisions.roll_back(root)
    assert pinned.read_text() == first
