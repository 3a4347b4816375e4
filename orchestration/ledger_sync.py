"""Brings Dagster up to date with the ledger: what `dvc repro` made shows as materialized, without running.

An event is reported for every recorded output that Dagster does not know in that form. Its tags say which versions
of which inputs it was made from, so that Dagster's own staleness agrees with `jobs.runner.staleness`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from assets.drift import with_drift
from assets.shipping import REGISTRATION_CODE_VERSION, registration_metadata, registration_version
from assets.stage_asset import LEDGER_TAG, check_results, result_metadata
from data_contracts.errors import InputError
from jobs.runner.layout import StageAddress
from jobs.runner.lineage import Lineage, Stage, code_version, read_lineage, read_yaml
from jobs.runner.registry import REGISTERED_MODELS, RegisteredVersion
from jobs.runner.run import read_report
from jobs.runner.staleness import StageState, lineage_state
from orchestration.partitions import add_missing_batches
from orchestration.plan import plan_table
from orchestration.plan_events import show_plan

BEFORE_EVERY_EVENT = "1"  # an event pointer older than any materialization
OUTDATED = "outdated"


def sync_ledger(root: Path, instance: dg.DagsterInstance) -> list[StageAddress]:
    """Report what Dagster lacks, upstream first, and what would run; returns the addresses reported as made."""
    add_missing_batches(root, instance)
    lineage = read_lineage(root)
    parameters = read_yaml(root / "params.yaml")
    code_versions = {stage.name: code_version(root, stage, parameters) for stage in lineage.stages}
    events = LatestEvents(instance)
    # Of one run, Dagster keeps one evaluation of a check and partition, and it takes all events without a run for one:
    # reported that way, the next evaluation of a partition would be refused.
    run_id = str(uuid4())
    reported = []
    states = lineage_state(root)
    for state in states:
        stage = lineage.stage(state.address.stage)
        tags = event_tags(events, lineage, stage, state, code_versions[stage.name])
        whole = [name for name in stage.upstream if lineage.stage(name).partition_set is None]
        if state.recorded is not None and not is_known(events.of(state.address), tags, whole):
            report(instance, lineage, state.address, tags, run_id)
            events.ask_again(state.address)
            reported.append(state.address)
    show_plan(instance, plan_table(states))
    return reported


def latest_event(instance: dg.DagsterInstance, address: StageAddress) -> dg.EventLogRecord | None:
    return instance.get_latest_data_version_record(dg.AssetKey(address.stage), None, address.partition)


class LatestEvents:
    """The newest event of each address, asked of Dagster once for all partitions: many stages read the same ones."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._asked: set[str] = set()
        self._events: dict[StageAddress, dg.EventLogRecord | None] = {}

    def of(self, address: StageAddress) -> dg.EventLogRecord | None:
        if address.partition is not None and address.stage not in self._asked:
            self._asked.add(address.stage)
            self._events |= latest_of_partitions(self._instance, address.stage)
        elif address.partition is None and address not in self._events:
            self.ask_again(address)
        return self._events.get(address)

    def ask_again(self, address: StageAddress) -> None:
        """After a new event of it."""
        self._events[address] = latest_event(self._instance, address)


def latest_of_partitions(instance: dg.DagsterInstance, stage: str) -> dict[StageAddress, dg.EventLogRecord]:
    """Two questions instead of one for each partition."""
    key, made = dg.AssetKey(stage), dg.DagsterEventType.ASSET_MATERIALIZATION
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(key, made)
    if not newest:
        return {}
    chosen = dg.AssetRecordsFilter(asset_key=key, storage_ids=list(newest.values()))
    records = instance.fetch_materializations(chosen, limit=len(newest)).records
    return {StageAddress(stage, record.partition_key): record for record in records}


def is_known(event: dg.EventLogRecord | None, tags: Mapping[str, str], whole: Sequence[str]) -> bool:
    """whole: stages without partitions that are read. Dagster itself may not have known their outputs' versions when
    it ran this one, where `dvc repro` had just made them; of partitions it puts versions together its own way."""
    if event is None or event.event_log_entry.tags is None:
        return False
    known = event.event_log_entry.tags
    inputs = [get_input_data_version_tag(dg.AssetKey(name)) for name in whole]
    compared = [DATA_VERSION_TAG, LEDGER_TAG, *inputs]
    if tags[CODE_VERSION_TAG] != OUTDATED:
        compared.append(CODE_VERSION_TAG)
    return all(known.get(tag) == tags[tag] for tag in compared)


def event_tags(
    events: LatestEvents, lineage: Lineage, stage: Stage, state: StageState, current_code: str
) -> dict[str, str]:
    if state.recorded is None:
        return {}
    tags = {
        DATA_VERSION_TAG: state.recorded.data_version,
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
        CODE_VERSION_TAG: OUTDATED if changed_by_itself(state) else current_code,
        LEDGER_TAG: state.recorded.entry_hash,
    }
    for name in stage.upstream:
        key = dg.AssetKey(name)
        read = [each for each in lineage.stage(name).addresses if stage.reads(each, state.address.partition)]
        tags[get_input_data_version_tag(key)] = state.input_versions[name]
        tags[get_input_event_pointer_tag(key)] = event_pointer(events, name, read, state)
    return tags


def changed_by_itself(state: StageState) -> bool:
    """Whether command, code, parameters or the output itself changed, and not only what the stage reads."""
    return any(change.kind != "input" for change in state.changes)


def event_pointer(
    events: LatestEvents, upstream: str, read: Sequence[StageAddress], state: StageState
) -> str:
    """Storage id of the newest event that was read of an upstream asset; before all of them where it changed."""
    changed = {StageAddress.parse(change.subject).stage for change in state.changes if change.kind == "input"}
    if upstream in changed:
        return BEFORE_EVERY_EVENT
    found = [event for address in read if (event := events.of(address)) is not None]
    return str(max((event.storage_id for event in found), default=BEFORE_EVERY_EVENT))


def report(
    instance: dg.DagsterInstance,
    lineage: Lineage,
    address: StageAddress,
    tags: Mapping[str, str],
    run_id: str,
) -> None:
    content = found_report(lineage, address)
    metadata: dict[str, Any] = {"how": "recorded by dvc repro"}
    if content is not None:
        content = with_drift(lineage, address, content)
        metadata |= result_metadata(lineage, address, None, content)
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            address.stage, partition=address.partition, metadata=metadata, tags=dict(tags)
        )
    )
    if content is not None:
        report_checks(instance, address, content, run_id)


def found_report(lineage: Lineage, address: StageAddress) -> dict[str, Any] | None:
    """None where the output is neither here nor in the remote: what is known of it is shown all the same."""
    try:
        return read_report(lineage.root, lineage.profile, address)
    except InputError:
        return None


def report_checks(
    instance: dg.DagsterInstance, address: StageAddress, content: Mapping[str, Any], run_id: str
) -> None:
    """The check results in a `report.json`, as evaluations of the address's newest materialization."""
    event = latest_event(instance, address)
    assert event is not None
    target = AssetCheckEvaluationTargetMaterializationData(
        storage_id=event.storage_id, run_id=event.run_id, timestamp=event.timestamp
    )
    for check in check_results(content, address.stage):
        evaluation = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(address.stage),
            check_name=str(check.check_name),
            passed=check.passed,
            description=check.description,
            severity=check.severity,
            metadata=check.metadata,
            target_materialization_data=target,
            partition=address.partition,
        )
        if address.partition is None:
            instance.report_runless_asset_event(evaluation)
            continue
        reported = dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_CHECK_EVALUATION.value,
            event_specific_data=evaluation,
            job_name="dvc_repro",
        )
        instance.report_dagster_event(reported, run_id=run_id)


def sync_registration(
    instance: dg.DagsterInstance, states: Sequence[StageState], versions: Sequence[RegisteredVersion]
) -> None:
    """Show models registered outside Dagster as a materialization of `registration`."""
    address_tags = {
        DATA_VERSION_TAG: registration_version(versions),
        CODE_VERSION_TAG: REGISTRATION_CODE_VERSION,
    }
    known = instance.get_latest_data_version_record(dg.AssetKey("registration"))
    if (
        known is not None
        and (known.event_log_entry.tags or {}).get(DATA_VERSION_TAG) == address_tags[DATA_VERSION_TAG]
    ):
        return
    tags = address_tags | {DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
    for state in states:
        if state.address.stage in REGISTERED_MODELS and state.recorded is not None:
            key, event = dg.AssetKey(state.address.stage), latest_event(instance, state.address)
            tags[get_input_data_version_tag(key)] = state.recorded.data_version
            tags[get_input_event_pointer_tag(key)] = str(event.storage_id) if event else BEFORE_EVERY_EVENT
    instance.report_runless_asset_event(
        dg.AssetMaterialization("registration", metadata=registration_metadata(versions), tags=tags)
    )
