"""Converting a checkpoint takes the memory of a tensor, not of a model."""

import json
from pathlib import Path

import pytest
import torch

from alto_models.published.convert_altollm import convert_altollm
from alto_models.published.sharded_tensors import write_tensors
from tests.alto_models.published.internvl_chat_folder import (
    network,
    published_config,
    published_tensors,
    write_folder,
    write_tokenizer,
)


def test_memory_stays_below_twice_the_largest_shard(tmp_path: Path) -> None:
    """Peak resident memory, mapped files included, of converting shards of 24 MiB."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        pytest.skip("only Linux tells a process its peak of resident memory")

    def mebibytes(field: str) -> float:
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024

    (tmp_path / "wide").mkdir()
    shard_mebibytes = 24.0
    largest = _write_wide_checkpoint(tmp_path / "wide", shard_mebibytes)
    small = write_folder(tmp_path / "small", network("internlm2"))
    convert_altollm(small, tmp_path / "imports_are_made")
    before = mebibytes("VmRSS")
    reset.write_text("5")
    convert_altollm(tmp_path / "wide", tmp_path / "converted")
    assert shard_mebibytes / 2 < largest < 1.1 * shard_mebibytes
    assert mebibytes("VmHWM") - before < 2 * largest


def _write_wide_checkpoint(folder: Path, shard_mebibytes: float) -> float:
    """A checkpoint of about 100 MiB, written without holding it; returns the largest shard in MiB."""
    with torch.device("meta"):
        model = network("internlm2", hidden_size=512, intermediate_size=2048, num_hidden_layers=6)
    (folder / "config.json").write_text(json.dumps(published_config(model)))
    write_tokenizer(folder)
    shards: list[list[tuple[str, torch.Tensor]]] = [[]]
    for item in published_tensors(model).items():
        if sum(tensor.nbytes for _, tensor in [*shards[-1], item]) > shard_mebibytes * 2**20:
            shards.append([])
        shards[-1].append(item)
    weight_map = {}
    for number, shard in enumerate(shards):
        values = (torch.ones(tensor.shape) for _, tensor in shard)
        write_tensors(folder / f"{number}.safetensors", shard, values)
        weight_map |= {name: f"{number}.safetensors" for name, _ in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return max(path.stat().st_size for path in folder.glob("*.safetensors")) / 2**20
