"""`dvc.yaml` says of each stage exactly what it reads and where it writes."""

import importlib
import shutil
from pathlib import Path

import pytest
import yaml

from jobs.altollm_training import DEEPSPEED_FOLDER
from jobs.runner.import_closure import declared_code
from jobs.runner.layout import STAGES, StageAddress, output_folder, parameter_section, stage_of_path
from jobs.runner.lineage import code_version, read_lineage

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_every_stage_of_the_layout_is_in_dvc_yaml_and_the_other_way_round() -> None:
    assert sorted(ENTRIES) == sorted(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_declared_code_is_the_import_closure(stage: str) -> None:
    declared = [path for path in ENTRIES[stage]["deps"] if not stage_of_path(path)]
    assert declared == declared_code(ROOT, stage), "run `python -m jobs.runner.import_closure --write`"


@pytest.mark.parametrize("stage", ["altollm_sft", "altollm_grpo", "grpo_sweep"])
def test_a_change_of_deepspeeds_settings_changes_the_code_version(stage: str, tmp_path: Path) -> None:
    assert str(DEEPSPEED_FOLDER) in ENTRIES[stage]["deps"]
    declared = read_lineage(ROOT).stage(stage)
    for path in (*declared.code, "params.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, tmp_path / path)
    before = code_version(tmp_path, declared)
    settings = tmp_path / DEEPSPEED_FOLDER / "zero2.json"
    settings.write_text(settings.read_text().replace("50000000", "40000000"))
    assert code_version(tmp_path, declared) != before


@pytest.mark.parametrize("stage", STAGES)
def test_output_folder_and_command_follow_the_layout(stage: str) -> None:
    entry = ENTRIES[stage]
    if "matrix" in entry:
        (item,) = entry["matrix"]
        folder = output_folder("PROFILE", StageAddress(stage, "PARTITION"))
    else:
        item, folder = "", output_folder("PROFILE", StageAddress(stage))
    # DVC runs it in a shell: nothing from another file is in it.
    assert entry["cmd"] == f"python -m jobs.{stage}"
    (out,) = entry["outs"]
    written = out.replace("${profile}", "PROFILE").replace(f"${{item.{item}}}", "PARTITION")
    assert Path(written) == folder


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_key_exists_in_the_base_profile(stage: str) -> None:
    from jobs.runner.lineage import look_up

    base = yaml.safe_load((ROOT / "infra/profiles/base.yaml").read_text())
    for key in ENTRIES[stage]["params"]:
        if isinstance(key, str):
            look_up(base, key.split(".${")[0])


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_of_a_stage_reaches_its_job(stage: str) -> None:
    """A job gets exactly the parameters that its stage lists."""
    section = parameter_section(stage)
    listed = [key for key in ENTRIES[stage]["params"] if isinstance(key, str)]
    fields = importlib.import_module(f"jobs.{stage}").Config.model_fields
    reached = {
        name for name in fields for key in listed if key == section or key.startswith(f"{section}.{name}")
    }
    assert reached == set(fields)
