"""`alto benchmark altollm`: any language model on a prepared benchmark, as the stage measures its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from alto_models.checkpoint import save_checkpoint
from alto_models.tokenizer.model import MaskTokenizer
from jobs.benchmarking.results import SAMPLES_SCHEMA, BenchmarkMetrics, read_metrics, read_table
from tests.alto_models.altollm.scripted import ScriptedLLM
from tests.alto_models.altollm.tiny import CODES, untrained
from tests.alto_models.tokenizer.tiny import TINY
from tests.jobs.benchmark_example import write_prepared
from tests.orchestration.conftest import ROOT, Alto, assert_refused, make_project

MODEL = ["--model", "models/altollm_grpo"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a prepared benchmark, a language model and its mask tokenizer."""
    monkeypatch.setattr("alto_models.altollm.api.AltoLLM", ScriptedLLM)
    torch.manual_seed(0)
    untrained().save(tmp_path / "models/altollm_grpo")
    config = TINY.model_copy(update={"codebook_size": CODES})
    save_checkpoint(tmp_path / "models/tokenizer_stage1_5", config, MaskTokenizer(config).state_dict())
    make_project(tmp_path)
    write_prepared(tmp_path / "data/small/prepare_benchmark/scenes", 3)
    return tmp_path


def test_measures_under_both_protocols_beside_the_baselines(alto: Alto, folder: Path) -> None:
    printed = alto("benchmark", "altollm", "scenes", *MODEL, "--out", "out")
    assert printed.status == 0, printed.stderr
    metrics = read_metrics(Path("out/metrics.json"), BenchmarkMetrics)
    assert (metrics.learned, metrics.starting_point, metrics.limit) == (["altollm"], None, None)
    runs = [(one.system, one.mode) for one in metrics.systems if one.system == "altollm"]
    assert runs == [("altollm", "full"), ("altollm", "adaptive")]
    assert metrics.released[0].samples == metrics.records
    samples = read_table(Path("out/samples.parquet"), SAMPLES_SCHEMA).to_pandas()
    assert samples["image_id"].nunique() == 3
    giou = next(one.giou.value for one in metrics.systems if one.giou and one.mode == "adaptive")
    assert f"altollm_giou                     {round(giou, 4)}" in printed.stdout


def test_a_limit_shows_in_every_output(alto: Alto, folder: Path) -> None:
    printed = alto("benchmark", "altollm", "scenes", *MODEL, "--limit", "2", "--out", "out")
    assert "limit                            2" in printed.stdout
    assert read_metrics(Path("out/metrics.json"), BenchmarkMetrics).limit == 2


@pytest.mark.slow
def test_two_processes_measure_as_one(alto: Alto, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    command = ["-m", "orchestration.cli", "benchmark", "altollm", "scenes", *MODEL, "--out"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    parameters["benchmark"]["images_per_shard"] = 1
    Path("params.yaml").write_text(yaml.safe_dump(parameters))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for started in ([*command, "one"], [*torchrun, *command, "two"]):
        done = subprocess.run(
            [sys.executable, *started],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert "s an answer" in done.stdout
    one, two = ({path.name: path.read_bytes() for path in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert not list(Path().glob(".two*"))


def test_an_unknown_benchmark_is_named(alto: Alto, folder: Path) -> None:
    refused = alto("benchmark", "altollm", "nowhere", *MODEL, "--out", "out")
    assert_refused(refused, "no such benchmark; run `dvc repro prepare_benchmark@nowhere` first", folder)
