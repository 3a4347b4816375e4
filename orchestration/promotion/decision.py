"""Gathers the evidence for a promotion, decides, and acts. Deciding alone changes nothing."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from assets.drift import champion_data
from data_contracts.errors import InputError
from jobs.benchmarking.results import (
    METRICS_FILE,
    SAMPLES_FILE,
    SAMPLES_SCHEMA,
    BenchmarkMetrics,
    read_metrics,
    read_table,
)
from jobs.benchmarking.vqa_results import VQA_METRICS_FILE, VqaMetrics
from jobs.runner.layout import StageAddress, output_folder
from jobs.runner.lineage import Lineage, read_lineage
from jobs.runner.registry import CHALLENGER, CHAMPION
from jobs.runner.run import read_report
from jobs.runner.stage_lock import StageLock
from jobs.runner.staleness import StageState, lineage_state
from jobs.runner.worker import parse_config
from orchestration.promotion.champion import ALTOLLM, Registry
from orchestration.promotion.rules import (
    Finding,
    PairedSamples,
    PromotionRules,
    compare_with_baselines,
    compare_with_champion,
)

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
        return f"{ALTOLLM} {self.challenger} {verdict} {against}"


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
            samples = {name: _folder(lineage, name) / SAMPLES_FILE for name in _benchmarks(lineage)}
            registry.crown(decision.challenger, samples, _trained_on(lineage))
        return decision


def roll_back(root: Path) -> str:
    """Make the previous champion champion again; returns its version."""
    with StageLock(root, PROMOTION):
        registry = Registry(root)
        registry.settle()
        return str(registry.roll_back().version)


def _decide(lineage: Lineage, registry: Registry) -> Decision:
    section = yaml.safe_load((lineage.root / "params.yaml").read_text()).get(PROMOTION, {})
    rules = parse_config(PromotionRules, PROMOTION, section)
    challenger = registry.version(ALTOLLM, CHALLENGER)
    if challenger is None:
        raise InputError(f"no version of {ALTOLLM} is registered as {CHALLENGER}: run `alto sync`")
    champion = registry.version(ALTOLLM, CHAMPION)
    same = champion is not None and champion.version == challenger.version
    states = [state for state in lineage_state(lineage.root) if state.address.stage in MEASURED]
    findings = [
        *_recorded_findings(states, challenger.tags.get("data_version")),
        *_contracts(lineage, states),
    ]
    if all(finding.passed for finding in findings):
        metrics = {
            name: read_metrics(_folder(lineage, name) / METRICS_FILE, BenchmarkMetrics)
            for name in _benchmarks(lineage)
        }
        findings += [_whole(one) for one in metrics.values()]
        findings += [_whole(one) for one in _question_sets(lineage)]
        if champion is None:
            for one in metrics.values():
                findings += compare_with_baselines(rules, one)
        elif not same:
            pairs, missing = _pairs(lineage, rules, registry, champion, metrics)
            findings += [*missing, *compare_with_champion(rules, pairs)]
    return Decision(
        challenger=str(challenger.version),
        champion=None if champion is None else str(champion.version),
        findings=tuple(findings),
        better=not same and all(finding.passed for finding in findings),
    )


def _recorded_findings(states: list[StageState], registered: str | None) -> list[Finding]:
    """Whether everything a decision rests on is recorded, up to date, and of the registered challenger."""
    findings = []
    for state in states:
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
        if state.plan != "does_not_run" or state.recorded is None:
            findings.append(
                Finding(
                    subject=str(state.address),
                    rule="up to date",
                    found=state.why,
                    passed=False,
                )
            )
    return findings


def _contracts(lineage: Lineage, states: list[StageState]) -> list[Finding]:
    return [
        Finding(subject=str(state.address), rule=check["name"], found=check["reason"], passed=check["passed"])
        for state in states
        if state.address.stage in CONTRACT_STAGES
        and (lineage.root / output_folder(lineage.profile, state.address)).is_dir()
        for check in read_report(lineage.root, lineage.profile, state.address)["checks"]
        if check["blocking"]
    ]


def _benchmarks(lineage: Lineage) -> list[str]:
    """Those of masks: the rules are about masks, and question sets are shown beside them."""
    names = [str(address.partition) for address in lineage.stage("benchmark").addresses]
    return [name for name in names if not (_folder(lineage, name) / VQA_METRICS_FILE).is_file()]


def _question_sets(lineage: Lineage) -> list[VqaMetrics]:
    folders = [_folder(lineage, str(address.partition)) for address in lineage.stage("benchmark").addresses]
    files = [folder / VQA_METRICS_FILE for folder in folders]
    return [read_metrics(file, VqaMetrics) for file in files if file.is_file()]


def _folder(lineage: Lineage, benchmark: str) -> Path:
    return lineage.root / output_folder(lineage.profile, StageAddress("benchmark", benchmark))


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


def _pairs(
    lineage: Lineage,
    rules: PromotionRules,
    registry: Registry,
    champion: object,
    metrics: dict[str, BenchmarkMetrics],
) -> tuple[list[PairedSamples], list[Finding]]:
    """Answers of both on each benchmark, and a finding for each benchmark the champion has no answers of."""
    pairs, missing = [], []
    for name, own in metrics.items():
        theirs = registry.samples(champion, name)
        if theirs is None:
            missing.append(
                Finding(
                    subject=name,
                    rule="the champion was measured on it",
                    found="no results are kept with the champion",
                    passed=False,
                )
            )
            continue
        ours = read_table(_folder(lineage, name) / SAMPLES_FILE, SAMPLES_SCHEMA).to_pandas()
        wanted = (own.challenger, rules.mode)
        challenger, before = (
            table[(table["system"] == wanted[0]) & (table["mode"] == wanted[1])] for table in (ours, theirs)
        )
        pairs.append(
            PairedSamples(
                benchmark=name, codebook_size=own.codebook_size, challenger=challenger, champion=before
            )
        )
    return pairs, missing
