"""Gathers the evidence for a promotion, decides, and acts. Deciding alone changes nothing."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from assets.drift import champion_data
from data_contracts.errors import InputError
from jobs.benchmarking.results import BenchmarkMetrics
from jobs.benchmarking.vqa_results import VqaMetrics
from jobs.runner.layout import output_folder
from jobs.runner.lineage import Lineage, read_lineage
from jobs.runner.model_card import CONTRACTS, CONTRACTS_KEPT
from jobs.runner.registry import CHALLENGER, CHAMPION
from jobs.runner.run import read_report
from jobs.runner.stage_lock import StageLock
from jobs.runner.staleness import StageState, lineage_state
from jobs.runner.worker import parse_config
from orchestration.left_out import left_out, standing
from orchestration.promotion.champion import ALTOLLM, ROLLED_BACK, Registry
from orchestration.promotion.evidence import Measured, findings_against
from orchestration.promotion.rules import Finding, PromotionRules, compare_with_baselines

PROMOTION = "promotion"  # the stage, and its section of params.yaml
CONTRACT_STAGES = ("prepare_sa1b", "prepare_referring", "prepare_benchmark")
MEASURED = ("altollm_grpo", "benchmark", *CONTRACT_STAGES)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """challenger, champion: versions of `altollm`; champion is None before the first one.

    better: whether the challenger may become champion; False, too, where it is the champion already.
    """

    challenger: str
    champion: str | None
    findings: tuple[Finding, ...]
    better: bool

    @property
    def summary(self) -> str:
        against = f"champion {self.champion}" if self.champion else "the baselines (there is no champion)"
        verdict = "is better than" if self.better else "is not shown to be better than"
        without = ", ".join(f"{one.subject} ({one.found})" for one in self.findings if one.left_out)
        left = f"; not trained on {without}" if without else ""
        return f"{ALTOLLM} {self.challenger} {verdict} {against}{left}"

    @property
    def reason(self) -> str:
        """The summary, and what speaks against the challenger."""
        against = [f"{one.subject} {one.rule}: {one.found}" for one in self.findings if not one.passed]
        return "; ".join([self.summary, *against])


def decide(root: Path) -> Decision:
    """Compare the registered challenger with the champion. Raises InputError where there is no challenger."""
    return _decide(read_lineage(root), Registry(root))


def promote(root: Path) -> Decision:
    """Make the challenger champion if it is better; repairs what an earlier call left half done."""
    with StageLock(root, PROMOTION):
        lineage, registry = read_lineage(root), Registry(root)
        registry.settle()
        decision = _decide(lineage, registry)
        if decision.better:
            results = Measured(lineage).to_keep()
            registry.crown(decision.challenger, decision.champion, results, _trained_on(lineage))
            registry.note(decision.challenger, "promoted", decision.summary)
        elif decision.challenger != decision.champion:
            registry.note(decision.challenger, "refused", decision.reason)
        return decision


def roll_back(root: Path) -> str:
    """Make the previous champion champion again; returns its version."""
    with StageLock(root, PROMOTION):
        registry = Registry(root)
        registry.settle()
        lost, champion = registry.roll_back()
        reason = f"{ALTOLLM} {champion.version} is champion again, instead of {lost.version}"
        registry.note(lost.version, "rolled_back", reason)
        return str(champion.version)


def _decide(lineage: Lineage, registry: Registry) -> Decision:
    section = yaml.safe_load((lineage.root / "params.yaml").read_text()).get(PROMOTION, {})
    rules = parse_config(PromotionRules, PROMOTION, section)
    challenger = registry.version(ALTOLLM, CHALLENGER)
    if challenger is None:
        raise InputError(f"no version of {ALTOLLM} is registered as {CHALLENGER}: run `alto sync`")
    champion = registry.version(ALTOLLM, CHAMPION)
    same = champion is not None and champion.version == challenger.version
    states = lineage_state(lineage.root)
    findings = [
        *_recorded_findings(states, challenger.tags.get("data_version")),
        *_registered_findings(challenger),
        *_contracts(lineage, states),
    ]
    if all(finding.passed for finding in findings):
        measured = Measured(lineage)
        findings += [_whole(one) for one in measured.masks.values()]
        findings += [_whole(one) for one in measured.questions.values()]
        if champion is None:
            for one in measured.masks.values():
                findings += compare_with_baselines(rules, one)
        elif not same:
            findings += findings_against(rules, measured, partial(registry.kept, champion))
    return Decision(
        challenger=str(challenger.version),
        champion=None if champion is None else str(champion.version),
        findings=tuple(findings),
        better=not same and all(finding.passed for finding in findings),
    )


def _recorded_findings(states: list[StageState], registered: str | None) -> list[Finding]:
    """Whether everything a decision rests on is recorded, up to date, and of the registered challenger.

    A model is held to the data that it was trained on: what was left out is named, and no reason to refuse.
    """
    findings = []
    without, up_to_date = left_out(states), standing(states)
    for state in states:
        if state.address.stage not in MEASURED:
            continue
        if state.address.stage == "altollm_grpo":
            same = state.recorded is not None and state.recorded.data_version == registered
            findings.append(
                Finding(
                    subject=str(state.address),
                    rule="is the registered challenger",
                    found="it is" if same else "another version: run `alto sync`",
                    passed=same,
                )
            )
        if why := without.get(state.address):
            findings.append(
                Finding(
                    subject=str(state.address),
                    rule="listed, and the challenger was not trained on it",
                    found=why,
                    passed=True,
                    left_out=True,
                )
            )
        elif state.address not in up_to_date:
            findings.append(
                Finding(
                    subject=str(state.address),
                    rule="up to date",
                    found=state.why,
                    passed=False,
                )
            )
    return findings


def _registered_findings(challenger: Any) -> list[Finding]:
    """What the registry says of the challenger, whatever is still here of what it was made from."""
    subject = f"{ALTOLLM} {challenger.version}"
    contracts = challenger.tags.get(CONTRACTS, "not known: run `alto sync`")
    rolled_back = ROLLED_BACK in challenger.tags
    return [
        Finding(
            subject=subject,
            rule="data kept its contracts",
            found=contracts,
            passed=contracts == CONTRACTS_KEPT,
        ),
        Finding(
            subject=subject,
            rule="was not rolled back",
            found=f"it was; its tag {ROLLED_BACK} says so" if rolled_back else "it was not",
            passed=not rolled_back,
        ),
    ]


def _contracts(lineage: Lineage, states: list[StageState]) -> list[Finding]:
    return [
        Finding(subject=str(state.address), rule=check["name"], found=check["reason"], passed=check["passed"])
        for state in states
        if state.address.stage in CONTRACT_STAGES
        and (lineage.root / output_folder(lineage.profile, state.address)).is_dir()
        for check in read_report(lineage.root, lineage.profile, state.address)["checks"]
        if check["blocking"]
    ]


def _trained_on(lineage: Lineage) -> str:
    """Versions and statistics of the training data, which is what a challenger that is up to date has read."""
    versions = {
        state.address: state.recorded.data_version
        for state in lineage_state(lineage.root)
        if state.recorded is not None
    }
    return champion_data(lineage, versions)


def _whole(metrics: BenchmarkMetrics | VqaMetrics) -> Finding:
    return Finding(
        subject=metrics.benchmark,
        rule="the whole benchmark",
        found=f"{metrics.images} of {metrics.images_available} images",
        passed=metrics.images == metrics.images_available,
    )
