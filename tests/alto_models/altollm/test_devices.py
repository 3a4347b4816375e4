"""Training steps follow the model's device and precision, and never wait for the device."""

import pytest
import torch

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.generation import Questions, Sampling
from alto_models.altollm.grammar import State
from alto_models.altollm.network import image_embeddings
from alto_models.altollm.packing import Branch, pack
from alto_models.altollm.processor import normalise, square_thumbnail
from alto_models.altollm.scoring import Group, answer_log_probs
from alto_models.altollm.supervised import score_answers
from tests.alto_models.altollm import one_device
from tests.alto_models.altollm.tiny import picture, untrained

PADDING = 0
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def pixels(llm: AltoLLM) -> torch.Tensor:
    return normalise(square_thumbnail(picture(3), llm.image_size)[None])


def prompt(llm: AltoLLM) -> list[int]:
    return llm.template.question_ids(llm.tokenizer, "Segment <ref>the red star</ref>.")


def trainable_on_meta(dtype: torch.dtype) -> AltoLLM:
    llm = untrained().to(torch.device("meta"))
    llm.model.to(dtype).train()
    return llm


@PRECISIONS
def test_a_supervised_step_never_waits_for_the_device(dtype: torch.dtype) -> None:
    llm = trainable_on_meta(dtype)
    ids = prompt(llm)
    branch = Branch(ids=[*ids, *llm.vocabulary.encode([3, 1])], prompt_length=len(ids))
    with one_device.OneDevice():
        image = image_embeddings(llm.model, pixels(llm))
        batch = pack(
            llm.prefixes(image),
            [[branch, branch]],
            padding_id=PADDING,
            image_token=llm.model.config.image_token_id,
        )
        scores = score_answers(llm.model, image, batch)
        scores.loss.backward()
    assert scores.logits.dtype == dtype
    assert scores.loss.dtype == scores.token_accuracy.dtype == torch.float32
    assert all(parameter.grad is not None for parameter in llm.model.model.language_model.parameters())


@PRECISIONS
def test_scoring_groups_never_waits_for_the_device(dtype: torch.dtype) -> None:
    llm = trainable_on_meta(dtype)
    answers = [[*llm.vocabulary.encode(codes), llm.turn_end] for codes in ([3, 1], [0, 1, 2])]
    with one_device.OneDevice():
        image = image_embeddings(llm.model, pixels(llm))
        scored = answer_log_probs(
            llm.model,
            llm.grammar,
            image,
            llm.prefixes(image),
            [Group(prompt=prompt(llm), answers=answers)],
            max_length=4,
            temperature=1.0,
            padding_id=PADDING,
        )
        scored.log_probs.sum().backward()
    assert scored.log_probs.shape == scored.counted.shape == (2, 6)
    assert scored.log_probs.dtype == torch.float32
    assert scored.log_probs.device.type == "meta"


def test_half_precision_scores_as_full_precision_does() -> None:
    llm = untrained()
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        llm.model.to(dtype)
        with torch.no_grad():
            image = image_embeddings(llm.model, pixels(llm))
            found[dtype] = answer_log_probs(
                llm.model,
                llm.grammar,
                image,
                llm.prefixes(image),
                [Group(prompt=prompt(llm), answers=[llm.vocabulary.encode([3, 1])])],
                max_length=4,
                temperature=1.0,
                padding_id=PADDING,
            ).log_probs
    torch.testing.assert_close(found[torch.bfloat16], found[torch.float32], atol=0.05, rtol=0)


class Looks(one_device.TorchDispatchMode):
    """Counts how often the host asks for one value."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("between", [1, 8])
def test_generation_seldom_asks_whether_it_is_done(between: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it reads past the end changes no answer."""
    llm = untrained()
    image = llm.encode_images([picture(1)])
    asked = Questions(
        image=image,
        prefixes=llm.prefixes(image),
        image_of=[0, 0],
        prompts=[[*prompt(llm), llm.vocabulary.start], prompt(llm)],
        max_lengths=[4, 4],
    )
    plain = llm.generate(asked, Sampling())
    monkeypatch.setattr("alto_models.altollm.generation.steps_between_looks", lambda device: between)
    with Looks() as looks:
        assert llm.generate(asked, Sampling()) == plain
    assert 0 < looks.count <= max(map(len, plain)) // between + 1


def test_the_grammar_works_where_its_arguments_are() -> None:
    grammar = untrained().grammar
    logits = torch.empty(2, grammar.allowed.shape[1], device="meta")
    state = torch.full((2,), int(State.TEXT), device="meta")
    with one_device.OneDevice():
        restricted = grammar.restrict(logits, state)
        state, length = grammar.follow(state, state, restricted.argmax(-1), state)
    assert restricted.device == state.device == length.device == logits.device
