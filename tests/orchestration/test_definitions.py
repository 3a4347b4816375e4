"""What Dagster shows follows from `dvc.yaml`."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from data_contracts.errors import InputError
from jobs.runner.lineage import read_lineage
from orchestration.definitions import STAGE_ASSETS, build_definitions
from orchestration.jobs import PHASES

ROOT = Path(__file__).resolve().parents[2]

# docs/architecture.md and the design: stage -> what it reads.
READS = {
    "base_weights": set(),
    "acquire_sa1b": set(),
    "prepare_sa1b": {"acquire_sa1b"},
    "acquire_referring": set(),
    "prepare_referring": {"acquire_referring", "prepare_benchmark"},
    "acquire_benchmark": set(),
    "prepare_benchmark": {"acquire_benchmark"},
    "tokenizer_stage1": {"prepare_sa1b", "base_weights"},
    "tokenizer_stage1_5": {"prepare_sa1b", "tokenizer_stage1"},
    "tokenizer_benchmark": {"prepare_sa1b", "tokenizer_stage1_5"},
    "mask_tokens": {"prepare_referring", "tokenizer_stage1_5"},
    "altollm_sft": {"prepare_referring", "mask_tokens", "tokenizer_stage1_5", "base_weights"},
    "altollm_grpo": {"prepare_referring", "altollm_sft", "tokenizer_stage1_5"},
    "grpo_sweep": {"prepare_referring", "altollm_sft", "tokenizer_stage1_5"},
    "benchmark": {"prepare_benchmark", "altollm_sft", "altollm_grpo", "tokenizer_stage1_5"},
    "benchmark_report": {"benchmark", "tokenizer_benchmark"},
    "registration": {"tokenizer_stage1_5", "altollm_grpo"},
    "promotion": {"registration", "benchmark_report"},
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions(ROOT)


def test_assets_and_dependencies_are_those_of_the_design(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    shown = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert shown == READS


def test_partitions_are_those_of_partitions_yaml(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    lineage = read_lineage(ROOT)
    for stage in lineage.stages:
        partitions = graph.get(dg.AssetKey(stage.name)).partitions_def
        assert (partitions is not None) == bool(stage.partition_set), stage.name
        if isinstance(partitions, dg.StaticPartitionsDefinition):
            assert tuple(partitions.get_partition_keys()) == stage.partitions


def test_every_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        summary, *parts = (node.description or "").split("\n\n")
        assert 20 < len(summary) < 120, key
        assert [part.split(" ")[0] for part in parts] == ["**Reads:**", "**Good:**", "**If"], key
        assert all(len(part) > 40 for part in parts), key
        assert node.group_name != "default", key
        assert node.owners, key
        assert node.kinds, key
        assert node.tags.keys() >= {"phase", "device"}, key


def code_references(asset: dg.AssetsDefinition) -> list[Any]:
    (metadata,) = asset.metadata_by_key.values()
    return metadata["dagster/code_references"].code_references


def test_every_asset_leads_to_its_code(definitions: dg.Definitions) -> None:
    for asset in definitions.resolve_asset_graph().assets_defs:
        if not isinstance(asset, dg.AssetsDefinition) or not asset.keys or asset.check_keys == asset.keys:
            continue
        for reference in code_references(asset):
            path = Path(reference.file_path)
            assert path.is_file(), reference
            if path.suffix != ".md":
                line = path.read_text().splitlines()[reference.line_number - 1]
                assert re.match(r"def (run|register|promote)\(|  \w+:$|promotion:|Config|run = ", line), (
                    reference
                )


def test_code_links_lead_to_the_remote_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTO_CODE_URL", "https://github.com/someone/alto/")
    monkeypatch.setenv("ALTO_CODE_BRANCH", "release")
    assets = build_definitions(ROOT).resolve_asset_graph().assets_defs
    (mask_tokens,) = (asset for asset in assets if dg.AssetKey("mask_tokens") in asset.keys)
    links = {reference.label: reference.url for reference in code_references(mask_tokens)}
    assert links["job"].startswith("https://github.com/someone/alto/tree/release/jobs/mask_tokens.py#L")
    assert links["documentation"] == "https://github.com/someone/alto/tree/release/docs/training.md"
    monkeypatch.setenv("ALTO_CODE_URL", "https://code.example.org/alto")
    with pytest.raises(InputError, match="ALTO_CODE_URL"):
        build_definitions(ROOT)


def test_tables_show_their_columns_and_where_they_come_from(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    columns = {}
    for key in graph.get_all_asset_keys():
        schema = graph.get(key).metadata.get("dagster/column_schema")
        assert (schema is not None) == ("parquet" in graph.get(key).kinds), key
        if schema is not None:
            assert all(column.description for column in schema.columns), key
            columns[key] = {column.name for column in schema.columns}
    for key, names in columns.items():
        lineage = graph.get(key).metadata.get("dagster/column_lineage")
        for name, sources in (lineage.deps_by_column if lineage else {}).items():
            assert name in names
            for source in sources:
                assert source.column_name in columns[source.asset_key], (key, source)
                assert source.asset_key in graph.get(key).parent_keys


def test_training_stages_share_the_gpu_pool(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for asset in STAGE_ASSETS:
        assert (graph.get(dg.AssetKey(asset.stage)).pools == {"gpu"}) == asset.needs_gpu, asset.stage


def test_every_asset_is_in_exactly_one_phase_job(definitions: dg.Definitions) -> None:
    in_jobs = [stage for stages in PHASES.values() for stage in stages]
    assert sorted(in_jobs) == sorted(READS)
    for name in [*PHASES, "retraining"]:
        assert definitions.resolve_job_def(name).name == name


def linked_project(folder: Path) -> Path:
    """The project's code with files of the lineage that may be changed."""
    for name in ("dvc.yaml", "partitions.yaml", "params.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    for code in ("jobs", "alto_models", "data_contracts", "infra"):
        (folder / code).symlink_to(ROOT / code)
    return folder


def test_a_sweep_has_the_weights_that_are_asked_for_and_none_by_default(tmp_path: Path) -> None:
    assert not read_lineage(ROOT).stage("grpo_sweep").addresses
    project = linked_project(tmp_path)
    listed = yaml.safe_load((project / "partitions.yaml").read_text())
    listed["grpo_sweep"]["length_weights"] = ["0", "0.02"]
    (project / "partitions.yaml").write_text(yaml.safe_dump(listed))
    addresses = read_lineage(project).stage("grpo_sweep").addresses
    assert [str(address) for address in addresses] == ["grpo_sweep@0", "grpo_sweep@0.02"]
    asset = build_definitions(project).resolve_asset_graph().get(dg.AssetKey("grpo_sweep"))
    assert asset.partitions_def is not None
    assert list(asset.partitions_def.get_partition_keys()) == ["0", "0.02"]


def test_code_version_follows_parameters(definitions: dg.Definitions, tmp_path: Path) -> None:
    from jobs.runner.lineage import code_version

    lineage = read_lineage(ROOT)
    linked_project(tmp_path)
    before = {stage.name: code_version(tmp_path, stage) for stage in lineage.stages}
    parameters = yaml.safe_load((tmp_path / "params.yaml").read_text())
    parameters["altollm_grpo"]["steps"] += 1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(parameters))
    after = {stage.name: code_version(tmp_path, stage) for stage in lineage.stages}
    assert {name for name in before if before[name] != after[name]} == {"altollm_grpo", "grpo_sweep"}


def test_loading_the_definitions_imports_nothing_slow() -> None:
    """Every Dagster run, sensor tick and page starts with it."""
    slow = {"torch", "transformers", "pandas", "mlflow", "great_expectations"}
    command = f"import sys, orchestration.definitions; print(*({slow!r} & sys.modules.keys()))"
    result = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
