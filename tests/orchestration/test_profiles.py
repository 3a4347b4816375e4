"""Profiles: a base and short differences; wrong input is one clear line."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from data_contracts.errors import InputError
from jobs.runner.layout import STAGES, parameter_section
from jobs.runner.worker import parse_config
from orchestration.profiles import override, profile_names, render_profile

ROOT = Path(__file__).resolve().parents[2]


def alto(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestration.cli", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


def test_committed_parameters_are_those_of_profile_small() -> None:
    assert (ROOT / "params.yaml").read_text() == render_profile(ROOT, "small")


@pytest.mark.parametrize("name", profile_names(ROOT))
def test_every_stage_accepts_every_profile(name: str) -> None:
    import importlib

    parameters = yaml.safe_load(render_profile(ROOT, name))
    assert parameters["profile"] == name
    for stage in STAGES:
        section = parameter_section(stage)
        parse_config(importlib.import_module(f"jobs.{stage}").Config, section, parameters.get(section, {}))


def test_profile_may_only_name_known_parameters() -> None:
    with pytest.raises(InputError, match=r"x\.yaml: tokenizer_stage1: stepz is not a parameter"):
        override({"tokenizer_stage1": {"steps": 1}}, {"tokenizer_stage1": {"stepz": 2}}, "x.yaml")


def test_a_profile_may_have_data_sets_of_its_own() -> None:
    base = {"prepare": {"datasets": {"drawn": {"share": 0.1}}, "limit": 1}}
    shared = {"splits": ["val"]}
    changes = {"prepare": {"datasets": {"mine": shared, "other": shared, "drawn": {"share": 0.2}}}}
    merged = override(base, changes, "x.yaml")
    assert merged["prepare"]["datasets"] == {"drawn": {"share": 0.2}, "mine": shared, "other": shared}
    assert "&" not in yaml.safe_dump(merged)
    with pytest.raises(InputError, match=r"x\.yaml: prepare: datasets: drawn: shar is not a parameter"):
        override(base, {"prepare": {"datasets": {"drawn": {"shar": 0.2}}}}, "x.yaml")


def test_the_documented_benchmarks_are_a_profile() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    block = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    base = yaml.safe_load((ROOT / "infra" / "profiles" / "base.yaml").read_text())
    merged = override(base, block, "docs/benchmarks.md")
    for section, settings in block.items():
        assert set(merged[section]["benchmarks"]) == {"scenes", *settings["benchmarks"]}


def test_section_of_another_kind_is_taken_whole() -> None:
    base = {
        "encoder": {"kind": "conv", "width": 3},
        "data": {"source": "sample", "images": 5},
        "processes": {},
    }
    conv = override(base, {"encoder": {"kind": "conv", "width": 4}}, "x.yaml")
    assert conv == base | {"encoder": {"kind": "conv", "width": 4}}
    changes = {"encoder": {"kind": "sam", "layers": 2}, "data": {"source": "s3"}, "processes": {"train": 8}}
    assert override(base, changes, "x.yaml") == changes


def test_unknown_parameter_names_its_key() -> None:
    from jobs.acquire_sa1b import Config

    with pytest.raises(InputError, match=r"params\.yaml: acquire_sa1b\.sauce: unknown parameter"):
        parse_config(Config, "acquire_sa1b", {"source": "sample", "sauce": 1})


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("profile", "huge"), "unknown profile 'huge': choose one of"),
        (("accept", "tokenizer_stage9", "--reason", "x"), "unknown stage 'tokenizer_stage9'"),
        (
            ("accept", "prepare_sa1b@../x", "--reason", "x"),
            "partition key '../x' of prepare_sa1b may hold only",
        ),
    ],
)
def test_wrong_input_is_one_line_and_a_non_zero_status(arguments: tuple[str, ...], line: str) -> None:
    result = alto(*arguments)
    assert result.returncode == 2
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_outside_a_project_the_command_says_so(tmp_path: Path) -> None:
    result = alto("plan", cwd=tmp_path)
    assert result.returncode == 2
    assert "no dvc.yaml" in result.stderr
    assert len(result.stderr.splitlines()) == 1
