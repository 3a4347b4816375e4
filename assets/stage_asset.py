"""From a stage of `dvc.yaml` and what people should see of it to a Dagster asset."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dagster as dg

from assets.code_links import code_references
from assets.described import Guide, described
from assets.drift import with_drift
from assets.pictures import kept_pictures, page_address, shown_pictures
from assets.storage_patience import answering_afterwards
from assets.tables import definition_metadata, table_metadata
from data_contracts.errors import InputError
from jobs.runner.check_failed import CheckFailed
from jobs.runner.exchange import Unreachable
from jobs.runner.layout import WHOLE_REPORT, StageAddress, output_folder
from jobs.runner.ledger import InputsMoved, Recorded
from jobs.runner.lineage import Lineage, Stage, code_version, parameters_of, read_yaml
from jobs.runner.run import Launch, last_run_folder, read_last_run, read_report, run_stage

LEDGER_TAG = "alto/ledger"
FINAL_TAG = "alto/final"  # of a run that ends the same if it is tried again, with the reason


@dataclass(frozen=True, kw_only=True)
class StageCheck:
    """A check that a stage reports. A failed blocking check fails the run, in both doors."""

    name: str
    description: str
    blocking: bool = False


@dataclass(frozen=True, kw_only=True)
class StageAsset:
    """What Dagster shows of a stage beside what `dvc.yaml` says. description: one line."""

    stage: str
    group: str
    description: str
    guide: Guide
    kinds: frozenset[str]
    checks: tuple[StageCheck, ...] = ()
    needs_gpu: bool = False
    owners: tuple[str, ...] = ("team:alto",)


class Launcher(Protocol):
    """Starts a stage's job for a Dagster run (orchestration/launching/session.py)."""

    def launch_for(self, context: dg.AssetExecutionContext) -> Launch: ...


def build_assets(
    declared: Sequence[StageAsset], lineage: Lineage, partitions: Mapping[str, dg.PartitionsDefinition]
) -> list[dg.AssetsDefinition]:
    """One asset a stage; `partitions` maps the keys of `partitions.yaml` to Dagster's definitions."""
    parameters = read_yaml(lineage.root / "params.yaml")
    versions = {stage.name: code_version(lineage.root, stage, parameters) for stage in lineage.stages}
    return [build_asset(asset, lineage, partitions, versions[asset.stage], parameters) for asset in declared]


def build_asset(
    declared: StageAsset,
    lineage: Lineage,
    partitions: Mapping[str, dg.PartitionsDefinition],
    version_of_code: str,
    parameters: Mapping[str, Any],
) -> dg.AssetsDefinition:
    stage = lineage.stage(declared.stage)

    @dg.asset(
        name=stage.name,
        deps=[dependency(lineage, stage, name) for name in stage.upstream],
        description=described(declared.description, declared.guide),
        group_name=declared.group,
        kinds=set(declared.kinds),
        owners=list(declared.owners),
        tags={"phase": declared.group, "device": "gpu" if declared.needs_gpu else "cpu"},
        partitions_def=partitions[stage.partition_set] if stage.partition_set else None,
        code_version=version_of_code,
        pool="gpu" if declared.needs_gpu else None,
        check_specs=[
            dg.AssetCheckSpec(
                check.name, asset=stage.name, description=check.description, blocking=check.blocking
            )
            for check in declared.checks
        ],
        metadata=asset_metadata(declared, stage, lineage.root, parameters),
    )
    def materialize(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[Launcher]) -> Iterator[Any]:
        partition = context.partition_key if stage.partition_set else None
        address = StageAddress(stage.name, partition)
        try:
            with answering_afterwards(context.instance):
                recorded = run_stage(lineage.root, address, launcher.launch_for(context))
            report = read_report(lineage.root, lineage.profile, address)
        except CheckFailed as error:
            report = with_drift(lineage, address, error.report, error.result)
            yield from check_results(report, declared.stage)
            context.instance.add_run_tags(context.run_id, {FINAL_TAG: "a blocking check failed"})
            raise dg.Failure(str(error), allow_retries=False) from error
        except (InputError, InputsMoved) as error:
            if isinstance(error, InputError):
                context.instance.add_run_tags(context.run_id, {FINAL_TAG: "wrong input"})
            raise dg.Failure(str(error), allow_retries=False) from error
        except Unreachable as error:
            raise dg.Failure(str(error)) from error
        report = with_drift(lineage, address, report)
        # What comes with the result itself, Dagster stores a second time, with the output of the step.
        context.add_asset_metadata(result_metadata(lineage, address, recorded, report))
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(recorded.data_version),
            tags={LEDGER_TAG: recorded.entry_hash},
            check_results=list(check_results(report, declared.stage)),
        )

    return materialize


def dependency(lineage: Lineage, stage: Stage, upstream: str) -> dg.AssetDep:
    """Where both have partitions, Dagster takes a partition to read the one of equal name, which may not be so."""
    reads_all = stage.partition_set is not None and upstream not in stage.upstream_same_partition
    if reads_all and lineage.stage(upstream).partition_set is not None:
        return dg.AssetDep(upstream, partition_mapping=dg.AllPartitionMapping())
    return dg.AssetDep(upstream)


def asset_metadata(
    declared: StageAsset, stage: Stage, root: Path, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Of the definition: command, parameters with their values, code and where it is, columns."""
    places = [
        ("job", f"jobs/{stage.name}.py", "def run("),
        ("stage", "dvc.yaml", f"  {stage.name}:"),
        ("documentation", declared.guide.page, ""),
    ]
    return {
        "command": stage.command,
        "parameters": dg.MetadataValue.json(parameters_of(stage, parameters)),
        "code": list(stage.code),
        **code_references(root, places),
        **definition_metadata(stage.name),
    }


def check_results(report: Mapping[str, Any], stage: str) -> Iterator[dg.AssetCheckResult]:
    for check in report["checks"]:
        yield dg.AssetCheckResult(
            asset_key=stage,
            check_name=check["name"],
            passed=check["passed"],
            description=check["reason"],
            severity=dg.AssetCheckSeverity.ERROR if check["blocking"] else dg.AssetCheckSeverity.WARN,
            metadata={name: _check_metadata(value) for name, value in check["details"].items()},
        )


def _check_metadata(value: Any) -> Any:
    """A list of flat dictionaries is a table."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return dg.MetadataValue.table([dg.TableRecord(row) for row in value])
    return dg.MetadataValue.json(value) if isinstance(value, dict | list) else value


def result_metadata(
    lineage: Lineage, address: StageAddress, recorded: Recorded | None, report: Mapping[str, Any]
) -> dict[str, Any]:
    """Pictures, links and numbers that a person wants to see on the asset's page, in this order."""
    folder = lineage.root / output_folder(lineage.profile, address)
    return {
        **shown_pictures(lineage.root, folder),
        **links(lineage, address, folder),
        **table_metadata(address.stage, folder, address.partition),
        **report["figures"],
        **size_metadata(folder),
        **run_metadata(lineage, address, recorded),
        "output": dg.MetadataValue.path(str(folder)),
        **kept_pictures(folder),
    }


def links(lineage: Lineage, address: StageAddress, folder: Path) -> dict[str, dg.UrlMetadataValue]:
    """Pages of the result, Data Docs and the MLflow run."""
    found = {page.stem: page for page in sorted(folder.glob("*.html"))}
    docs = last_run_folder(lineage.root, address) / "data_docs" / "index.html"
    if docs.exists():
        found["data docs"] = docs
    metadata = {name: page_link(page.relative_to(lineage.root).as_posix()) for name, page in found.items()}
    if address.stage == "benchmark_report":
        metadata["whole report"] = page_link(WHOLE_REPORT)
    last_run = read_last_run(lineage.root, address)
    if last_run is not None and last_run.mlflow_run_id:
        metadata["mlflow run"] = dg.MetadataValue.url(
            f"{mlflow_pages()}/#/experiments/{last_run.mlflow_experiment_id}/runs/{last_run.mlflow_run_id}"
        )
    return metadata


def run_metadata(lineage: Lineage, address: StageAddress, recorded: Recorded | None) -> dict[str, Any]:
    last_run = read_last_run(lineage.root, address)
    how = {} if recorded is None else {"how": recorded.how}
    return how if last_run is None else how | {"seconds": last_run.seconds}


def size_metadata(folder: Path) -> dict[str, int]:
    """Nothing for a result that is in the remote only."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    sizes = {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
    return sizes if files else {}


def page_link(page: str) -> dg.UrlMetadataValue:
    return dg.MetadataValue.url(f"{page_address()}/{page}")


def mlflow_pages() -> str:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return uri if uri.startswith("http") else os.environ.get("ALTO_MLFLOW_URL", "http://127.0.0.1:5000")
