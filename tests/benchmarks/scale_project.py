"""A project as it is after a year: 1,000 SA-1B shards in batches, every stage recorded 52 times; tiny outputs."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from io import BytesIO
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from dvc.repo import Repo
from tqdm import tqdm

from assets import altollm, benchmarks, data, tokenizer
from assets.drift import DRIFT
from assets.stage_asset import LEDGER_TAG
from assets.tables import TABLES
from jobs.runner.layout import StageAddress, output_folder
from jobs.runner.ledger import Ledger
from jobs.runner.lineage import Lineage, read_lineage
from orchestration.ledger_sync import sync_ledger
from orchestration.local_services import use_project_home
from orchestration.partitions import add_missing_batches
from tests.lineage.project import copy_repository

PARQUET_FILES_A_SHARD = 11  # SA-1B has 11,186 images a shard, and a prepared file holds 1,024
LENGTH_WEIGHTS = ("0", "0.01", "0.02", "0.05")


def create(root: Path, shards: int, batches: int) -> Lineage:
    """Copy the repository to `root` (profile smoke), list the shards in batches, and lay out stand-in outputs."""
    copy_repository(root)
    list_partitions(root, shards, batches)
    lineage = read_lineage(root)
    for address in tqdm(lineage.addresses, desc="Laying out", unit="output"):
        lay_out(lineage, address, version="52")
    return lineage


def list_partitions(root: Path, shards: int, batches: int) -> None:
    path = root / "partitions.yaml"
    partitions = yaml.safe_load(path.read_text())
    keys = [f"batch_{number:03d}" for number in range(batches)]
    names = [f"sa_{number:06d}.tar" for number in range(shards)]
    partitions["sa1b"] = {
        "batches": keys,
        "shards": {key: names[number::batches] for number, key in enumerate(keys)},
    }
    partitions["grpo_sweep"] = {"length_weights": list(LENGTH_WEIGHTS)}
    path.write_text(yaml.safe_dump(partitions, sort_keys=False))


def lay_out(lineage: Lineage, address: StageAddress, version: str) -> None:
    folder = lineage.root / output_folder(lineage.profile, address)
    lay_out_in(folder, lineage.root, address, version)


def lay_out_in(folder: Path, root: Path, address: StageAddress, version: str) -> None:
    """Files as many as the real ones, a few bytes each, that differ by address and version."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f"{address} version {version}\n"
    for name in file_names(root, address):
        content = f"{name} of {text}".encode()
        if name.endswith(".parquet"):
            content = empty_table(address.stage).replace(b"PAR1", b"PAR1" + content, 1)
        (folder / name).write_bytes(content)
    checks = [
        {"name": name, "passed": True, "blocking": True, "reason": "holds", "details": {}}
        for name in checks_of(address.stage)
    ]
    report = {"figures": {"rows_read": 100, "rows_accepted": 100, "version": version}, "checks": checks}
    (folder / "report.json").write_text(json.dumps(report))


@cache
def empty_table(stage: str) -> bytes:
    """A Parquet file without rows, with the columns that the stage's files have; nothing in it says where it begins."""
    schema = TABLES[stage].schema if stage in TABLES else pa.schema([("name", pa.string())])
    buffer = BytesIO()
    pq.write_table(schema.empty_table(), buffer)
    return buffer.getvalue()


def file_names(root: Path, address: StageAddress) -> Iterator[str]:
    if address.stage in ("acquire_sa1b", "prepare_sa1b"):
        shards = yaml.safe_load((root / "partitions.yaml").read_text())["sa1b"]["shards"][address.partition]
        if address.stage == "acquire_sa1b":
            yield from ("dataset.json", *shards)
            return
        yield from (f"shard-{i:05d}.parquet" for i in range(PARQUET_FILES_A_SHARD * len(shards)))
    yield "manifest.parquet"


def checks_of(stage: str) -> tuple[str, ...]:
    """Names of the checks that the stage itself reports; `drift` is made where a result is shown."""
    assets = (*data.ASSETS, *tokenizer.ASSETS, *altollm.ASSETS, *benchmarks.ASSETS)
    (declared,) = (asset for asset in assets if asset.stage == stage)
    return tuple(check.name for check in declared.checks if check.name != DRIFT)


def record_ledger(lineage: Lineage) -> None:
    """Record every output in `dvc.lock`, upstream first, in one go."""
    with Ledger(lineage.root).locked_stages() as locked:
        stages = [locked.find(address) for address in lineage.addresses]
        for stage in tqdm(stages, desc="Recording", unit="stage"):
            stage.save_deps()
            stage.save_outs()
            stage.md5 = stage.compute_md5()
            for output in stage.outs:
                output.commit()
        write_entries(locked.repo, stages)


def write_entries(repo: Repo, stages: list) -> None:
    from dvc.dvcfile import load_file

    load_file(repo, stages[0].path)._lockfile.dump_stages(stages)


def record_events(lineage: Lineage, instance: dg.DagsterInstance, versions: int) -> None:
    """What Dagster has seen in a year: so many materializations of every address, the last one of what is recorded."""
    add_missing_batches(lineage.root, instance)
    for address in tqdm(lineage.addresses, desc="Dagster events", unit="event"):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                address.stage,
                partition=address.partition,
                metadata={"rows_read": 100, "rows_accepted": 100, "seconds": 12.5},
                tags={"dagster/data_version": f"{address}-0", LEDGER_TAG: "0"},
            )
        )
    repeat_events(Path(instance.root_directory, "history", "runs", "index.db"), versions - 2)
    sync_ledger(lineage.root, instance)


def repeat_events(index: Path, times: int) -> None:
    """Write the events that are there so many times more: reporting each would take an hour."""
    with closing(sqlite3.connect(index)) as database, database:
        (last,) = database.execute("SELECT max(id) FROM event_logs").fetchone()
        for number in range(1, times + 1):
            shift = {"shift": number * last, "last": last, "version": f"-{number}"}
            for table, id_column in (("event_logs", "id"), ("asset_event_tags", "event_id")):
                columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
                columns = [name for name in columns if name != "id" or id_column == "id"]
                values = {name: name for name in columns}
                values[id_column] = f"{id_column} + :shift"
                if table == "event_logs":
                    values["event"] = "replace(event, '-0\"', :version || '\"')"
                else:
                    values["value"] = "replace(value, '-0', :version)"
                database.execute(
                    f"INSERT INTO {table} ({', '.join(columns)}) "
                    f"SELECT {', '.join(values.values())} FROM {table} WHERE {id_column} <= :last",
                    shift,
                )


def build(root: Path, shards: int, batches: int, versions: int) -> Lineage:
    """The whole project; takes minutes."""
    root.mkdir(parents=True, exist_ok=True)
    lineage = create(root, shards, batches)
    record_ledger(lineage)
    os.environ["DAGSTER_HOME"] = str(root / ".work" / "dagster")
    use_project_home(root)
    with dg.DagsterInstance.get() as instance:
        record_events(lineage, instance, versions)
    return lineage
