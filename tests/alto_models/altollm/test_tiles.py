"""Images cut into tiles: the grid InternVL chooses, and that everything downstream works with it."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.generation import Questions, Sampling
from alto_models.altollm.packing import Branch, pack
from alto_models.altollm.processor import square_thumbnail, tile_grid, tiles
from alto_models.altollm.scoring import Group, answer_log_probs
from alto_models.altollm.supervised import score_answers
from tests.alto_models.altollm.tiny import picture, untrained

PADDING = 0
WIDE, TALL = picture(1, 40, 120), picture(2, 90, 30)


def tiled(max_tiles: int = 4) -> AltoLLM:
    llm = untrained()
    llm.max_tiles = max_tiles
    return llm


@settings(max_examples=200, deadline=None)
@given(st.integers(8, 3000), st.integers(8, 3000), st.sampled_from([32, 336, 448]), st.integers(1, 12))
@example(448, 448, 448, 12)
@example(2000, 2000, 448, 12)
@example(634, 634, 448, 12)
def test_the_grid_is_that_of_transformers(height: int, width: int, side: int, max_tiles: int) -> None:
    assert tile_grid(height, width, side, max_tiles) == get_optimal_tiled_canvas(
        (height, width), (side, side), 1, max_tiles
    )


@pytest.mark.parametrize("image", [WIDE, TALL, picture(3, 50, 50)])
def test_tiles_are_those_of_transformers(image: np.ndarray) -> None:
    expected = GotOcr2ImageProcessorPil().crop_image_to_patches(
        image, 1, 6, patch_size=SizeDict(height=32, width=32), resample=PILImageResampling.BICUBIC
    )
    found = tiles(image, 32, 6)
    assert found.shape == (len(expected), 32, 32, 3)
    np.testing.assert_allclose(found, np.stack(expected), atol=1)


def test_one_tile_is_the_padded_square() -> None:
    np.testing.assert_array_equal(tiles(WIDE, 32, 1), square_thumbnail(WIDE, 32)[None])


def test_the_number_of_image_tokens_follows_the_image() -> None:
    llm = tiled()
    image = llm.encode_images([WIDE, TALL])
    a_tile = llm.model.config.image_seq_length
    assert [len(one) for one in image] == [4 * a_tile, 4 * a_tile]  # three in a line, and the whole
    assert len(llm.encode_images([picture(3, 20, 20)])[0]) == a_tile


def questions(llm: AltoLLM, pictures: list[np.ndarray], prompts: list[str]) -> Questions:
    image = llm.encode_images(pictures)
    return Questions(
        image=image,
        prefixes=llm.prefixes(image),
        image_of=range(len(pictures)),
        prompts=[llm.template.question_ids(llm.tokenizer, prompt) for prompt in prompts],
        max_lengths=[4] * len(prompts),
    )


@torch.no_grad()
def test_images_of_different_numbers_of_tiles_are_answered_as_alone() -> None:
    llm = tiled()
    pictures, prompts = [picture(3, 20, 20), WIDE], ["Segment <ref>the red star</ref>.", "ring"]
    together = llm.generate(questions(llm, pictures, prompts), Sampling())
    for place in range(2):
        alone = questions(llm, pictures[place : place + 1], prompts[place : place + 1])
        assert llm.generate(alone, Sampling()) == together[place : place + 1]
    groups = [
        Group(prompt=llm.template.question_ids(llm.tokenizer, prompt), answers=[answer])
        for prompt, answer in zip(prompts, together, strict=True)
    ]
    options = {"max_length": 4, "temperature": 1.0, "padding_id": PADDING}
    image = llm.encode_images(pictures)
    scored = answer_log_probs(llm.model, llm.grammar, image, llm.prefixes(image), groups, **options)
    for place, answer in enumerate(together):
        mine = image[place : place + 1]
        alone = answer_log_probs(
            llm.model, llm.grammar, mine, llm.prefixes(mine), groups[place : place + 1], **options
        )
        torch.testing.assert_close(
            scored.log_probs[place, : len(answer)], alone.log_probs[0], atol=1e-4, rtol=0
        )


@torch.no_grad()
def test_rows_of_different_numbers_of_tiles_score_as_the_model_alone() -> None:
    llm = tiled()
    image = llm.encode_images([picture(3, 20, 20), WIDE])
    branch = Branch(ids=[20, 21, 22, 23, 24], prompt_length=2)
    token = llm.model.config.image_token_id
    prefixes = llm.prefixes(image)
    batch = pack(prefixes, [[branch], [branch]], padding_id=PADDING, image_token=token)
    logits = score_answers(llm.model, image, batch).logits
    for row, (prefix, mine) in enumerate(zip(prefixes, image, strict=True)):
        ids = torch.tensor([[*prefix, *branch.ids]])
        inputs = llm.model.get_input_embeddings()(ids).masked_scatter((ids == token)[..., None], mine)
        plain = llm.model(inputs_embeds=inputs).logits[0, -4:-1]
        torch.testing.assert_close(logits[3 * row : 3 * row + 3], plain, atol=1e-4, rtol=0)
    swapped = dataclasses.replace(batch, image_tokens=batch.image_tokens[::-1])
    with pytest.raises(ValueError, match="image tokens"):
        score_answers(llm.model, image, swapped)


def test_tiles_are_part_of_the_checkpoint(tmp_path) -> None:
    assert untrained().max_tiles == 1
    llm = tiled(6)
    llm.save(tmp_path)
    assert AltoLLM.load(tmp_path).max_tiles == 6
