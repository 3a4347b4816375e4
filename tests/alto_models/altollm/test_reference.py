"""The KL reference takes the policy's place and gives it back untouched."""

import copy

import pytest
import torch
from torch import Tensor

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.reference import ReferenceWeights, language_parameters
from alto_models.altollm.scoring import Group, answer_log_probs
from alto_models.altollm.vocabulary import padding_id
from tests.alto_models.altollm.tiny import picture, untrained


def log_probs(llm: AltoLLM) -> Tensor:
    prompt = llm.template.question_ids(llm.tokenizer, "the red star")
    answers = [[llm.vocabulary.start, llm.vocabulary.codes[code], llm.vocabulary.end] for code in (1, 4)]
    image = llm.encode_images([picture(1)])
    return answer_log_probs(
        llm.model,
        llm.grammar,
        image,
        llm.prefixes(image),
        [Group(prompt=prompt, answers=answers)],
        max_length=4,
        temperature=1.0,
        padding_id=padding_id(llm.tokenizer),
    ).log_probs


def moved(llm: AltoLLM) -> AltoLLM:
    with torch.no_grad():
        for parameter in language_parameters(llm.model):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter)))
            parameter += 0.1 * noise.to(parameter.device)
    return llm


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
def test_the_reference_scores_as_a_second_model_would(device: str) -> None:
    llm = untrained().to(torch.device(device))
    second = AltoLLM(copy.deepcopy(llm.model), llm.tokenizer)
    reference = ReferenceWeights(llm.model)
    moved(llm)
    policy = {name: value.clone() for name, value in llm.model.state_dict().items()}
    before = log_probs(llm).detach()
    with reference.in_place():
        scores = log_probs(llm)
    assert not scores.requires_grad
    torch.testing.assert_close(scores, log_probs(second).detach(), atol=1e-6, rtol=0)
    assert (scores - before).abs().max() > 1e-3
    assert all(torch.equal(value, policy[name]) for name, value in llm.model.state_dict().items())
    with reference.in_place():  # and once more, after the first exchange
        torch.testing.assert_close(log_probs(llm), scores, atol=0, rtol=0)


def test_an_error_in_between_leaves_the_policy_in_place() -> None:
    llm = untrained()
    reference = ReferenceWeights(llm.model)
    before = log_probs(moved(llm)).detach()
    with pytest.raises(RuntimeError), reference.in_place():
        raise RuntimeError
    torch.testing.assert_close(log_probs(llm).detach(), before, atol=0, rtol=0)


def test_only_language_weights_exist_twice() -> None:
    llm = untrained()
    reference = ReferenceWeights(llm.model)
    kept = {id(parameter) for parameter in language_parameters(llm.model)}
    for name, parameter in llm.model.named_parameters():
        assert (id(parameter) in kept) == (".language_model." in name or name.startswith("lm_head."))
    pointers = {name: parameter.data_ptr() for name, parameter in llm.model.named_parameters()}
    with reference.in_place():
        for name, parameter in llm.model.named_parameters():
            assert (parameter.data_ptr() != pointers[name]) == (id(parameter) in kept)


def test_the_policy_trains_on_after_the_exchange() -> None:
    llm = untrained()
    optimizer = torch.optim.AdamW(language_parameters(llm.model), 1e-2)
    reference = ReferenceWeights(llm.model)
    first = log_probs(llm)
    for _ in range(3):
        with reference.in_place():
            kept = log_probs(llm)
        loss = -log_probs(llm).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(kept, first.detach(), atol=0, rtol=0)
    assert log_probs(llm).sum() > first.sum()
