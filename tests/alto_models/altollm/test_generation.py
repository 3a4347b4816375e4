"""Constrained answers: every mask decodes, and caching and batching change nothing."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_models.altollm.generation import Questions, Sampling, generate
from alto_models.altollm.grammar import State
from alto_models.altollm.network import hidden_states
from alto_models.altollm.packing import Branch, pack
from alto_models.altollm.segmenting import decode_answers
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.whole_image import embed_whole_image
from tests.alto_models.altollm.tiny import picture, untrained
from tests.alto_models.tokenizer.tiny import TINY

LLM = untrained()
IMAGES = LLM.encode_images([picture(1), picture(2, 64, 30)])


def questions(
    prompts: list[str], image_of: list[int], max_length: int, samples: int = 1, start: bool = False
):
    ids = [LLM.template.question_ids(LLM.tokenizer, prompt) for prompt in prompts]
    return Questions(
        image=IMAGES,
        prefixes=LLM.prefixes(IMAGES),
        image_of=image_of,
        prompts=[[*prompt, LLM.vocabulary.start] if start else prompt for prompt in ids],
        max_lengths=[max_length] * len(prompts),
        samples=samples,
    )


def answers(asked: Questions, sampling: Sampling) -> list[list[int]]:
    return generate(
        LLM.model, LLM.grammar, asked, turn_end=LLM.turn_end, sampling=sampling, max_text_tokens=6
    )


def test_a_thousand_masks_of_an_untrained_model_all_decode() -> None:
    asked = questions(["Segment <ref>the red star</ref>.", "the ring"], [0, 1], 5, samples=500, start=True)
    sampled = answers(asked, Sampling(temperature=1.0, randomness=random_numbers(2)))
    assert len(sampled) == 1000
    read = [LLM.read([LLM.vocabulary.start, *ids, LLM.turn_end]) for ids in sampled]
    assert all(1 <= answer.length <= 5 and not answer.malformed for answer in read)
    assert {answer.length for answer in read} == {1, 2, 3, 4, 5}
    torch.manual_seed(0)
    tokenizer = MaskTokenizer(TINY).eval()
    embedding = embed_whole_image(tokenizer, [picture(1)])
    masks = decode_answers(tokenizer, embedding, (40, 56), read)
    assert len(masks) == 1000
    assert all(mask.shape == (40, 56) for mask in masks)


def plain_greedy(prompt: str, image: int, max_length: int) -> list[int]:
    """One token at a time, the whole conversation read anew for each."""
    ids = LLM.template.question_ids(LLM.tokenizer, prompt)
    answer: list[int] = []
    while (not answer or answer[-1] != LLM.turn_end) and len(answer) < 40:
        seen = IMAGES[image : image + 1]
        batch = pack(
            LLM.prefixes(seen),
            [[Branch(ids=[*ids, *answer], prompt_length=0)]],
            padding_id=0,
            image_token=LLM.model.config.image_token_id,
        )
        logits = LLM.model.lm_head(hidden_states(LLM.model, seen, batch)[0, -1])
        said = torch.tensor([[*answer, 0]])
        state = LLM.grammar.states(said, torch.tensor([max_length]))[0, -1]
        answer.append(int(LLM.grammar.restrict(logits, state).argmax()))
        if sum(LLM.grammar.states(torch.tensor([answer]), torch.tensor([max_length]))[0] == State.TEXT) >= 6:
            break
    return answer


@torch.no_grad()
def test_batched_answers_equal_one_by_one_without_a_cache() -> None:
    prompts = ["Segment <ref>the red star left of the ring</ref>.", "blue", "Segment <ref>ring</ref>."]
    found = answers(questions(prompts, [1, 0, 1], 4), Sampling())
    assert found == [plain_greedy(*asked, 4) for asked in zip(prompts, [1, 0, 1], strict=True)]


def random_numbers(questions: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, place]) for place in range(questions)]


def test_samples_of_one_prompt_equal_the_prompt_repeated() -> None:
    first = answers(
        questions(["red", "the ring"], [0, 1], 4, samples=3),
        Sampling(temperature=1.0, top_k=9, randomness=random_numbers(2)),
    )
    shared = [one for one in random_numbers(2) for _ in range(3)]
    repeated = answers(
        questions(["red"] * 3 + ["the ring"] * 3, [0] * 3 + [1] * 3, 4),
        Sampling(temperature=1.0, top_k=9, randomness=shared),
    )
    assert first == repeated


def test_what_is_drawn_for_a_question_does_not_depend_on_the_others() -> None:
    texts, seen = ["red", "the ring", "Segment <ref>the red star</ref>."], [0, 1, 1]
    together = answers(
        questions(texts, seen, 4, samples=3), Sampling(temperature=1.0, randomness=random_numbers(3))
    )
    assert len({tuple(answer) for answer in together}) > 3
    for place, (text, image) in enumerate(zip(texts, seen, strict=True)):
        alone = answers(
            questions([text], [image], 4, samples=3),
            Sampling(temperature=1.0, randomness=random_numbers(3)[place : place + 1]),
        )
        assert alone == together[3 * place : 3 * place + 3]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([None, 3]))
def test_tokens_are_drawn_as_often_as_their_probability_says(seed: int, top_k: int | None) -> None:
    logits = torch.tensor([0.3, float("-inf"), 1.5, -2.0, 0.9, float("-inf")])
    count, temperature = 4000, 0.8
    sampling = Sampling(temperature=temperature, top_k=top_k, randomness=[np.random.default_rng(seed)])
    drawn = sampling.draw(logits.expand(count, -1))
    weights = (logits.double() / temperature).exp()
    if top_k is not None:
        weights[weights < weights.sort().values[-top_k]] = 0
    found = torch.bincount(drawn, minlength=len(logits)) / count
    torch.testing.assert_close(found.double(), weights / weights.sum(), atol=0.04, rtol=0)
    assert not found[weights == 0].any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 4))
def test_what_the_grammar_allows_is_what_a_reading_of_the_rules_allows(moves: list[int], most: int) -> None:
    grammar, vocabulary = LLM.grammar, LLM.vocabulary
    alphabet = [vocabulary.start, vocabulary.end, *vocabulary.codes[:3], LLM.turn_end]
    said: list[int] = []
    for move in moves:
        inside = vocabulary.start in said and vocabulary.end not in said[_last(said, vocabulary.start) :]
        length = len(said) - 1 - _last(said, vocabulary.start) if inside else 0
        token = alphabet[move]
        is_code = token in vocabulary.codes
        if not inside:
            expected = not is_code and token != vocabulary.end
        elif length == 0:
            expected = is_code
        else:
            expected = token == vocabulary.end or (is_code and length < most)
        state = grammar.states(torch.tensor([[*said, 0]]), torch.tensor([most]))[0, -1]
        assert bool(grammar.allowed[state, token]) == expected
        if expected:
            said.append(token)


def _last(items: list[int], item: int) -> int:
    return len(items) - 1 - items[::-1].index(item)


def test_images_given_twice_are_encoded_once(monkeypatch) -> None:
    encoded = []
    monkeypatch.setattr(
        LLM, "encode_images", lambda images: encoded.append(len(images)) or IMAGES[: len(images)]
    )
    image = picture(1)
    LLM.answer([image, picture(2), image], ["red", "ring", "star"], max_length=3)
    assert encoded == [2]
