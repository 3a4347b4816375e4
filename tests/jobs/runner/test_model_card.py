"""A model card tells what a version was made of, at what cost, and what was measured of it."""

from typing import Any

from jobs.runner.layout import StageAddress
from jobs.runner.model_card import Made, ModelCard
from jobs.runner.run import LastRun


def made(address: str, seconds: float | None = None, processes: int = 1, **report: Any) -> Made:
    run = LastRun(
        fingerprint="f",
        data_version=address,
        git_commit="c" * 40,
        mlflow_experiment_id=None,
        mlflow_run_id=None,
        seconds=seconds or 0.0,
        finished_at=0.0,
        processes=processes,
    )
    return Made(
        address=StageAddress.parse(address),
        data_version=f"version of {address}",
        run=None if seconds is None else run,
        figures=report.get("figures", {}),
        checks=report.get("checks", []),
    )


def card(*sources: Made, measured: tuple[Made, ...] = ()) -> ModelCard:
    of = made("altollm_grpo", 1800, processes=8, figures={"after_giou": 0.61234})
    return ModelCard(profile="small", of=of, sources=sources, measured=measured)


CONTRACT = {"name": "contract", "passed": False, "reason": "3 of 9 rows quarantined"}


def test_device_hours_are_those_of_all_processes_of_all_runs_that_are_known() -> None:
    tags = card(made("tokenizer_stage1", 3600), made("base_weights", None)).tags()
    assert float(tags["device_hours"]) == 1 + 8 / 2
    assert float(tags["hours"]) == 1 + 1 / 2


def test_metrics_are_those_of_the_version_itself() -> None:
    figures = {"altollm_grpo_giou": 0.51234, "altollm_sft_giou": 0.4, "images": 9, "limit": "whole benchmark"}
    tags = card(measured=(made("benchmark@scenes", 1, figures=figures),)).tags()
    assert {name: value for name, value in tags.items() if name.startswith("metric.")} == {
        "metric.scenes.giou": "0.51234"
    }
    tokenizer = ModelCard(
        profile="small",
        of=made("tokenizer_stage1_5"),
        sources=(),
        measured=(made("tokenizer_benchmark", 1, figures={"iou": 0.7, "limit": "whole"}),),
    )
    assert tokenizer.tags()["metric.iou"] == "0.7"


def test_tags_name_the_version_of_every_source_and_one_of_all_partitions() -> None:
    first, second = made("prepare_sa1b@a", 1), made("prepare_sa1b@b", 1)
    tags = card(made("tokenizer_stage1", 1), first, second).tags()
    assert tags["data_version.tokenizer_stage1"] == "version of tokenizer_stage1"
    assert tags["data_version.prepare_sa1b"] == card(second, first).tags()["data_version.prepare_sa1b"]
    assert tags["data_version.prepare_sa1b"] != card(first).tags()["data_version.prepare_sa1b"]


def test_failed_checks_are_told_and_broken_contracts_can_be_searched_for() -> None:
    failing = card(made("prepare_referring@refcoco", 1, checks=[CONTRACT]))
    assert failing.tags()["contracts"] == "prepare_referring@refcoco: 3 of 9 rows quarantined"
    assert "check `contract` failed: 3 of 9 rows quarantined" in failing.text()
    health = {"name": "training_health", "passed": False, "reason": "loss not falling"}
    trained = card(made("tokenizer_stage1", 1, checks=[health]))
    assert trained.tags()["contracts"] == "passed"
    assert "check `training_health` failed: loss not falling" in trained.text()


def test_the_text_holds_figures_costs_and_what_was_measured() -> None:
    before = card(made("altollm_sft", 60)).text()
    assert "Not measured yet" in before
    assert "after_giou 0.6123" in before
    assert "| altollm_sft | `version of a` | cccccccccccc | 1.0 | 0.017 |" in before
    measured = card(measured=(made("benchmark@scenes", 60, figures={"giou": 0.5}),)).text()
    assert "**benchmark@scenes**: giou 0.5" in measured
    assert "Not measured yet" not in measured
