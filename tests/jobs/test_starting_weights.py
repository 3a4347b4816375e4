"""From SAM's published file to a tokenizer trained on it: convert, `base_weights`, stage 1."""

import hashlib
from pathlib import Path

import torch

from alto_models.published.starting_weights import convert_starting_weights
from alto_models.tokenizer.model import load_tokenizer
from jobs import base_weights, tokenizer_stage1
from tests.alto_models.published.sam_and_titok import SAM, sam_tensors
from tests.jobs.tokenizer_example import context, parameters, write_prepared_masks


def test_stage_1_trains_on_the_frozen_sam_it_was_given(tmp_path: Path) -> None:
    torch.save(sam_tensors(), tmp_path / "sam.pth")
    start = tmp_path / "start"
    given = convert_starting_weights(tmp_path / "sam.pth", None, start).tensors
    checksum = hashlib.sha256((start / "model.safetensors").read_bytes()).hexdigest()
    source = {"folder": str(start), "sha256": checksum, "licence": "Apache-2.0"}
    base = context(tmp_path, "base_weights")
    base_weights.run(base_weights.Config.model_validate({"tokenizer": source}), base)

    section = parameters("tokenizer_stage1") | {"initial_weights": "base"}
    section["tokenizer"] = section["tokenizer"] | {"grid": 2, "pixel_encoder": SAM.model_dump()}
    prepared = write_prepared_masks(tmp_path / "prepare_sa1b")
    run = context(tmp_path, "tokenizer_stage1", prepare_sa1b=prepared, base_weights=base.output)
    tokenizer_stage1.run(tokenizer_stage1.Config.model_validate(section), run)

    trained = load_tokenizer(run.output)
    assert trained.config.pixel_encoder == SAM
    tensors = trained.state_dict()
    for name, tensor in given.items():
        assert torch.equal(tensors[name], tensor), name
    embedding = trained.encode_image(torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    lengths, codes = torch.tensor([4]), torch.zeros(1, 4, dtype=torch.long)
    blind = trained.decode(codes, lengths, trained.embedding_without_image(1))
    assert not torch.equal(trained.decode(codes, lengths, embedding), blind)
