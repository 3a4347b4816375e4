"""Gathers the evidence for a promotion, decides, and acts. Deciding alone changes nothing."""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from data_contracts.errors import InputError
from jobs.benchmark import CHALLENGER as CHALLENGER_SYSTEM
from jobs.benchmarking.results import METRICS_FILE, SAMPLES_FILE, BenchmarkMetrics
from jobs.runner.layout import StageAddress, output_folder
from jobs.runner.lineage import Lineage, read_lineage
from jobs.runner.staleness import StageState, lineage_state
from orchestration.promotion.champion import (
    ALTOLLM,
    CHALLENGER_ALIAS,
    CHAMPION_ALIAS,
    Registry,
    promotion_lock,
)
from orchestration.promotion.rules import (
    Finding,
    PairedSamples,
    PromotionRules,
    compare_with_baselines,
    compare_with_champion,
)

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


def read_rules(root: Path) -> PromotionRules:
    """Section `promotion` of params.yaml. Raises InputError naming a wrong rule."""
    section = yaml.safe_load((root / "params.yaml").read_text()).get("promotion")
    try:
        return PromotionRules.model_validate(section)
    except ValidationError as error:
        where = "; ".join(f"promotion.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"params.yaml: {where}") from error


def decide(root: Path) -> Decision:
    """Compare the registered challenger with the champion. Raises InputError where there is no challenger."""
    rules, lineage, registry = read_rules(root), read_lineage(root), Registry(root)
    challenger = registry.version(ALTOLLM, CHALLENGER_ALIAS)
    if challenger is None:
        raise InputError(f"no version of {ALTOLLM} is registered as {CHALLENGER_ALIAS}: run `alto sync`")
    champion = registry.version(ALTOLLM, CHAMPION_ALIAS)
    states = [state for state in lineage_state(root) if state.address.stage in MEASURED]
    findings = [
        *_recorded_findings(states, challenger.tags.get("data_version")),
        *_contracts(lineage, states),
    ]
    if all(finding.passed for finding in findings):
        metrics = {name: _metrics(lineage, name) for name in _benchmarks(lineage)}
        findings += [_whole(one) for one in metrics.values()]
        if champion is None:
            for one in metrics.values():
                findings += compare_with_baselines(rules, CHALLENGER_SYSTEM, one)
        elif champion.version != challenger.version:
            pairs, missing = _pairs(lineage, rules, registry, champion, metrics)
            findings += [*missing, *compare_with_champion(rules, pairs)]
    same = champion is not None and champion.version == challenger.version
    return Decision(
        challenger=str(challenger.version),
        champion=None if champion is None else str(champion.version),
        findings=tuple(findings),
        better=not same and all(finding.passed for finding in findings),
    )


def promote(root: Path) -> Decision:
    """Make the challenger champion if it is better; repairs what an earlier call left half done."""
    with promotion_lock(root):
        registry = Registry(root)
        registry.settle()
        decision = decide(root)
        if decision.better:
            lineage = read_lineage(root)
            challenger = registry.version(ALTOLLM, CHALLENGER_ALIAS)
            samples = {name: _folder(lineage, name) / SAMPLES_FILE for name in _benchmarks(lineage)}
            registry.crown(challenger, samples)
        return decision


def roll_back(root: Path) -> str:
    """Make the previous champion champion again; returns its version."""
    with promotion_lock(root):
        registry = Registry(root)
        registry.settle()
        return str(registry.roll_back().version)


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
                    found=", ".join(state.reasons) or "never run",
                    passed=False,
                )
            )
    return findings


def _contracts(lineage: Lineage, states: list[StageState]) -> list[Finding]:
    findings = []
    for state in states:
        path = lineage.root / output_folder(lineage.profile, state.address) / "report.json"
        if state.address.stage not in CONTRACT_STAGES or not path.exists():
            continue
        checks = json.loads(path.read_text())["checks"]
        findings += [
            Finding(
                subject=str(state.address), rule=check["name"], found=check["reason"], passed=check["passed"]
            )
            for check in checks
        ]
    return findings


def _benchmarks(lineage: Lineage) -> list[str]:
    return [str(address.partition) for address in lineage.stage("benchmark").addresses]


def _folder(lineage: Lineage, benchmark: str) -> Path:
    return lineage.root / output_folder(lineage.profile, StageAddress("benchmark", benchmark))


def _metrics(lineage: Lineage, benchmark: str) -> BenchmarkMetrics:
    return BenchmarkMetrics.model_validate_json((_folder(lineage, benchmark) / METRICS_FILE).read_text())


def _whole(metrics: BenchmarkMetrics) -> Finding:
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
        ours = pq.read_table(_folder(lineage, name) / SAMPLES_FILE).to_pandas()
        wanted = (CHALLENGER_SYSTEM, rules.mode)
        challenger, before = (
            table[(table["system"] == wanted[0]) & (table["mode"] == wanted[1])] for table in (ours, theirs)
        )
        pairs.append(
            PairedSamples(
                benchmark=name, codebook_size=own.codebook_size, challenger=challenger, champion=before
            )
        )
    return pairs, missing
