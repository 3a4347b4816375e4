"""What a registered version was made of, at what cost, and how good it is: its tags and its model card."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.runner.layout import StageAddress, output_folder
from jobs.runner.ledger import value_hash
from jobs.runner.lineage import Lineage
from jobs.runner.run import LastRun, read_last_run, read_report
from jobs.runner.staleness import StageState

MEASURING_STAGES = ("tokenizer_benchmark", "benchmark")
CONTRACTS, CONTRACTS_KEPT = "contracts", "passed"  # the tag, and its value where all data kept its contract
CONTRACT_CHECKS = ("contract", "expectations")  # of the data
PURPOSE = {
    "tokenizer_stage1_5": "Mask tokenizer: turns a segmentation mask into a short, variable number of codes, and back.",
    "altollm_grpo": "Multimodal language model that answers a referring expression with mask tokens, as many as the "
    "mask needs, or says that there is no such object. Packed with the mask tokenizer that it was trained with.",
}
NOT_FOR = (
    "Quality holds for images and expressions like those it was measured on. Licences of data and base weights, named "
    "below where they were stated, bind the use of the model, too."
)


@dataclass(frozen=True, kw_only=True)
class Made:
    """One recorded output. run: telemetry of the run that made it, None where it was not made here."""

    address: StageAddress
    data_version: str
    run: LastRun | None
    figures: dict[str, Any]
    checks: list[dict[str, Any]]

    @property
    def device_hours(self) -> float | None:
        return None if self.run is None else self.run.device_hours


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """of: the checkpoint. sources: all that it was made from, upstream first. measured: benchmarks of just this
    version, none before they have run."""

    profile: str
    of: Made
    sources: tuple[Made, ...]
    measured: tuple[Made, ...]

    def tags(self) -> dict[str, str]:
        """Searchable in the registry. data_version.STAGE: of all its partitions together, where it has any.
        hours, device_hours: of the runs whose time is known. metric.BENCHMARK.NAME: what was measured of just this."""
        failed = [
            f"{made.address}: {check['reason']}"
            for made in self.sources
            for check in made.checks
            if check["name"] in CONTRACT_CHECKS and not check["passed"]
        ]
        runs = [
            (made.run.seconds / 3600, made.device_hours or 0.0) for made in self._all if made.run is not None
        ]
        versions: dict[str, dict[str, str]] = {}
        for made in self.sources:
            versions.setdefault(made.address.stage, {})[made.address.partition or ""] = made.data_version
        return {
            **{f"data_version.{stage}": one.get("") or value_hash(one) for stage, one in versions.items()},
            CONTRACTS: "; ".join(failed)[:5000] or CONTRACTS_KEPT,
            "hours": f"{sum(hours for hours, _ in runs):.4f}",
            "device_hours": f"{sum(device_hours for _, device_hours in runs):.4f}",
            **self._metrics(),
        }

    @property
    def _all(self) -> tuple[Made, ...]:
        return (*self.sources, self.of)

    def _metrics(self) -> dict[str, str]:
        """Figures of the version itself: a benchmark also has those of others, to which it puts their names."""
        metrics = {}
        for made in self.measured:
            benchmark = made.address.partition
            own = f"{self.of.address.stage}_" if benchmark else ""
            for name, value in made.figures.items():
                if name.startswith(own) and not isinstance(value, str):
                    place = f"{benchmark}." if benchmark else ""
                    metrics[f"metric.{place}{name.removeprefix(own)}"] = f"{value:g}"
        return metrics

    def text(self) -> str:
        """Markdown."""
        head = f"{PURPOSE[self.of.address.stage]}\n\n{NOT_FOR}\n\nProfile `{self.profile}`."
        return "\n\n".join(
            [
                head,
                "## Measured",
                _figures_of(self.measured) or "Not measured yet: run the benchmarks, then `alto sync`.",
                "## Training",
                _figures_of([self.of]),
                "## Made from",
                _table_of_sources(self._all),
                _figures_of(self.sources),
            ]
        )


def model_card(lineage: Lineage, found: Sequence[StageState], address: StageAddress) -> ModelCard:
    """The card of a recorded, up-to-date checkpoint. found: the state of every address."""
    states = {state.address: state for state in found if state.recorded is not None}
    made = {one: made_from(lineage, state) for one, state in states.items()}
    of = made[address]
    measured = [
        made[one]
        for one, state in states.items()
        if one.stage in MEASURING_STAGES
        and state.stands
        and state.input_versions.get(address.stage) == of.data_version
    ]
    upstream = lineage.all_upstream(address.stage)
    return ModelCard(
        profile=lineage.profile,
        of=of,
        sources=tuple(made[one] for one in states if one.stage in upstream),
        measured=tuple(measured),
    )


def made_from(lineage: Lineage, state: StageState) -> Made:
    """A recorded output with its report and telemetry, as far as they are here."""
    assert state.recorded is not None
    folder = lineage.root / output_folder(lineage.profile, state.address)
    report: dict[str, Any] = {"figures": {}, "checks": []}
    if (folder / "report.json").exists():  # outputs of others may lie in a remote only
        report = read_report(lineage.root, lineage.profile, state.address)
    run = read_last_run(lineage.root, state.address)
    return Made(
        address=state.address,
        data_version=state.recorded.data_version,
        run=run,
        figures=report["figures"],
        checks=report["checks"],
    )


def _figures_of(stages: Sequence[Made]) -> str:
    lines = []
    for made in stages:
        figures = ", ".join(f"{name} {_shown(value)}" for name, value in made.figures.items())
        lines.append(f"- **{made.address}**: {figures or 'no figures'}")
        lines += [
            f"  - check `{check['name']}` failed: {check['reason']}"
            for check in made.checks
            if not check["passed"]
        ]
    return "\n".join(lines)


def _table_of_sources(stages: Sequence[Made]) -> str:
    lines = ["| output | data version | commit | minutes | device hours |", "|---|---|---|---|---|"]
    for made in stages:
        commit, minutes, hours = "", "", ""
        if made.run is not None:
            commit, minutes = made.run.git_commit[:12], f"{made.run.seconds / 60:.1f}"
            hours = f"{made.device_hours:.3f}"
        lines.append(f"| {made.address} | `{made.data_version[:12]}` | {commit} | {minutes} | {hours} |")
    return "\n".join(lines)


def _shown(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
