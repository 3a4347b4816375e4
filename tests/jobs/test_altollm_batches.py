"""What the steps of fine-tuning learn from: limits, conversations, plain questions, and what is refused."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.conversation import NO_TARGET_ANSWER, Signals
from alto_models.altollm.examples import join_examples, read_mask_codes
from alto_models.altollm.packing import IGNORED
from alto_models.altollm.supervised import SupervisedLoss
from alto_models.data.referring import ReferringImages
from data_contracts.errors import InputError
from data_contracts.schemas import REFERRING_SCHEMA
from jobs import altollm_sft
from jobs.altollm_batches import SupervisedBatches
from tests.alto_models.altollm.tiny import picture
from tests.alto_models.tokenizer.tiny import TINY
from tests.jobs.tokenized_records import write_tokenized_records
from tests.jobs.tokenizer_example import merged, parameters

SEED = 4


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "base").mkdir()
    return write_tokenized_records(folder) | {"base_weights": folder / "base"}


def configured(**changes: Any) -> altollm_sft.Config:
    return altollm_sft.Config.model_validate(merged(parameters("altollm_sft"), changes))


def start(inputs: Mapping[str, Path], config: altollm_sft.Config) -> tuple[AltoLLM, SupervisedBatches]:
    torch.manual_seed(0)
    images = ReferringImages(inputs["prepare_referring"], "train")
    llm = altollm_sft.start(config, inputs["base_weights"], images, TINY.codebook_size)
    codes = read_mask_codes(inputs["mask_tokens"])
    examples = join_examples(images, codes, llm.vocabulary, Signals(llm.tokenizer))
    return llm, SupervisedBatches(config, llm, images, examples, SEED)


def learned(llm: AltoLLM, labels: torch.Tensor) -> str:
    return llm.tokenizer.decode(labels[labels != IGNORED])


def test_processes_share_a_step(inputs: dict[str, Path]) -> None:
    _, batches = start(inputs, configured(images_per_step=4, mask_loss={"weight": 1.0}))
    whole = batches.at(3, range(4))
    parts = [batches.at(3, range(2)), batches.at(3, range(2, 4))]
    assert whole.samples == [sample for part in parts for sample in part.samples]
    assert torch.equal(whole.pixels, torch.cat([part.pixels for part in parts]))
    assert whole.targets is not None
    assert list(whole.targets.masks) == [mask for part in parts for mask in part.targets.masks]
    assert len(whole.targets.pictures) <= 4 < len(whole.targets.masks) + 1


def test_no_sequence_is_longer_than_the_limit(inputs: dict[str, Path]) -> None:
    llm, batches = start(inputs, configured(records_per_image=3))
    lengths = [batches.at(step, range(2)).packed.ids.shape[1] for step in range(4)]
    limit = max(lengths) - 1
    _, limited = start(inputs, configured(records_per_image=3, max_tokens=limit))
    shortened = [limited.at(step, range(2)) for step in range(4)]
    assert max(batch.packed.ids.shape[1] for batch in shortened) <= limit
    assert (
        sum(batch.left_out for batch in shortened)
        > 0
        == sum(batches.at(s, range(2)).left_out for s in range(4))
    )


def test_a_record_longer_than_the_limit_is_named(inputs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="record .* of discs takes .* max_tokens"):
        start(inputs, configured(max_tokens=12))


def test_a_conversation_asks_again_after_each_answer(inputs: dict[str, Path]) -> None:
    llm, batches = start(inputs, configured(records_per_image=3, turns_per_conversation=3))
    rows = [
        (batch.packed, row) for batch in (batches.at(step, range(2)) for step in range(6)) for row in (0, 1)
    ]
    several = 0
    for packed, row in rows:
        ends = int((packed.labels[row] == llm.turn_end).sum())
        assert ends == 3  # every answer is learned, once
        several += int(packed.branch[row].max()) < 3
        expected = torch.where(packed.weights[row] > 0, packed.ids[row], IGNORED)
        assert torch.equal(packed.labels[row], expected)
    assert several


def test_requests_vary_where_asked_for(inputs: dict[str, Path]) -> None:
    llm, plain = start(inputs, configured())
    _, varied = start(inputs, configured(varied_requests=1.0))
    texts = [llm.tokenizer.decode(varied.at(step, range(2)).packed.ids.flatten()) for step in range(6)]
    assert any("mask for" in text for text in texts)
    assert not any("segment <ref>" in text and "can you" not in text for text in texts)
    assert "segment <ref>" in llm.tokenizer.decode(plain.at(0, range(2)).packed.ids.flatten())


@pytest.mark.parametrize("text", ["the <TOK_3> star", "<IMG_CONTEXT>", "a disc<|im_end|>"])
def test_an_expression_with_a_signal_names_its_record(
    inputs: dict[str, Path], tmp_path: Path, text: str
) -> None:
    path = next(inputs["prepare_referring"].rglob("shard-*.parquet"))
    rows = pq.read_table(path).to_pylist()
    rows[1]["records"][0]["expressions"] = [text]
    (tmp_path / "discs").mkdir()
    pq.write_table(
        pq.read_table(path).from_pylist(rows, schema=REFERRING_SCHEMA), tmp_path / "discs" / path.name
    )
    with pytest.raises(InputError, match="record one of discs.*signal"):
        start(inputs | {"prepare_referring": tmp_path}, configured())


def general(folder: Path, *lines: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    Image.fromarray(picture(7)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no image")
    path = folder / "vqa.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"file": str(path), "sha256": digest, "share": 0.5}


def line(*texts: str, image: str = "a.png") -> dict[str, Any]:
    speakers = ["human", "gpt"] * len(texts)
    return {
        "id": 3,
        "image": image,
        "conversations": [{"from": who, "value": text} for who, text in zip(speakers, texts, strict=False)],
    }


def test_plain_questions_are_mixed_in(inputs: dict[str, Path], tmp_path: Path) -> None:
    vqa = general(
        tmp_path, line("<image>\nIs there a star?", "No", "A disc?", "Yes"), line("What is it?", "A disc")
    )
    llm, batches = start(inputs, configured(general_vqa=vqa, mask_loss={"weight": 1.0}))
    drawn = [batches.at(step, range(2)) for step in range(10)]
    plain = [
        (batch.packed, row)
        for batch in drawn
        for row, name in enumerate(batch.samples)
        if name == "vqa.jsonl line 1"
    ]
    assert 0 < len(plain) < 20
    packed, row = plain[0]
    assert learned(llm, packed.labels[row]).replace(" ", "") == "no<|im_end|>yes<|im_end|>"
    assert "<image>" not in llm.tokenizer.decode(packed.ids[row])
    for batch in drawn:
        codes = torch.isin(batch.packed.labels, torch.tensor(llm.vocabulary.codes)).sum()
        assert int(codes) == sum(batch.targets.lengths)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{not json}\n", "line 2"),
        (line("Is it?", "Yes", image="../a.png"), "line 2.*path_safe"),
        (line("Is it?", "Yes", image="c.png"), "line 2.*c.png"),
        (line("Is it?"), "line 2.*human"),
        (line("Is it?", "Yes", "And?"), "line 2.*human"),
        (line("<image>", "Yes"), "line 2.*empty"),
        (line("Is it?", "The mask is <ALTo_Start>"), "line 2.*ALTo_Start"),
        ({"image": "a.png", "conversations": [{"from": "system", "value": "x"}]}, "line 2.*from"),
        (line("Is it " + "very " * 2000 + "red?", "Yes"), "line 2.*max_tokens"),
    ],
)
def test_wrong_plain_questions_name_file_and_line(
    inputs: dict[str, Path], tmp_path: Path, bad: Any, said: str
) -> None:
    vqa = general(tmp_path / "vqa", line("Is it?", "Yes"), bad)
    with pytest.raises(InputError, match=f"vqa.jsonl {said}"):
        start(inputs, configured(general_vqa=vqa))


def test_an_image_of_plain_questions_that_cannot_be_read_is_named(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    vqa = general(tmp_path, line("Is it?", "Yes", image="b.png")) | {"share": 0.9}
    _, batches = start(inputs, configured(general_vqa=vqa))
    with pytest.raises(InputError, match="vqa.jsonl line 1: image b.png"):
        [batches.at(step, range(2)) for step in range(3)]


def test_other_contents_than_the_parameters_say_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    vqa = general(tmp_path, line("Is it?", "Yes")) | {"sha256": "0" * 64}
    with pytest.raises(InputError, match="checksum"):
        start(inputs, configured(general_vqa=vqa))


def test_an_image_with_another_number_of_tokens_names_its_sample(inputs: dict[str, Path]) -> None:
    llm, batches = start(inputs, configured())
    batch = batches.at(0, range(2))
    wrong = replace(batch, packed=replace(batch.packed, image_tokens=(4, 3)))
    said = f"{batch.samples[1]}: the sequence has places for 3 image tokens, its image gives 4"
    with pytest.raises(InputError, match=re.escape(said)):
        altollm_sft.score(SupervisedLoss(llm.model), wrong)


def test_a_code_that_the_model_has_no_token_for_names_its_record(inputs: dict[str, Path]) -> None:
    llm, _ = start(inputs, configured())
    images = ReferringImages(inputs["prepare_referring"], "train")
    codes = read_mask_codes(inputs["mask_tokens"]) | {("discs", "both"): ((1, TINY.codebook_size), 2)}
    with pytest.raises(InputError, match=f"record both of discs: mask code {TINY.codebook_size}"):
        join_examples(images, codes, llm.vocabulary, Signals(llm.tokenizer))


def test_something_has_to_learn() -> None:
    with pytest.raises(ValueError, match="nothing is left to train"):
        configured(frozen=["vision_tower", "projector", "language_model"])


def test_refusals_are_learned_as_text(inputs: dict[str, Path]) -> None:
    llm, batches = start(inputs, configured(records_per_image=3))
    text = learned(llm, batches.at(0, range(2)).packed.labels)
    assert NO_TARGET_ANSWER.lower().strip(".") in text
