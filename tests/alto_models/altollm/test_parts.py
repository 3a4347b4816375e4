"""Freezing by part and gradient checkpointing change what is learned and kept, never what is computed."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from alto_models.altollm.network import image_embeddings
from alto_models.altollm.optimizer import build_optimizer
from alto_models.altollm.packing import Branch, PackedBatch, pack
from alto_models.altollm.parts import PARTS, Part, checkpoint_gradients, freeze
from alto_models.altollm.supervised import SupervisedLoss
from alto_models.altollm.vocabulary import padding_id
from tests.alto_models.altollm.tiny import untrained

LLM = untrained()
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
PREFIX_OF: dict[Part, str] = {
    "vision_tower": "model.vision_tower.",
    "projector": "model.multi_modal_projector.",
    "language_model": "model.language_model.",
}


def batch() -> PackedBatch:
    prompt = LLM.template.question_ids(LLM.tokenizer, "Segment the star")
    branches = [
        [Branch(ids=[*prompt, *LLM.vocabulary.encode(codes), LLM.turn_end], prompt_length=len(prompt))]
        for codes in ((3, 1), (4, 1, 5))
    ]
    return pack(
        [LLM.prefix(LLM.model.config.image_seq_length)] * 2,
        branches,
        padding_id=padding_id(LLM.tokenizer),
        image_token=LLM.model.config.image_token_id,
    )


def train(model: nn.Module, steps: int = 3) -> list[float]:
    model.train()
    optimizer = build_optimizer(model)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    objective, losses = SupervisedLoss(model), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = objective(PIXELS, batch())["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def part_of(name: str) -> Part:
    # The head shares its weights with the word embeddings here, or stands beside the language model.
    return next((part for part in PARTS if name.startswith(PREFIX_OF[part])), "language_model")


@pytest.mark.parametrize(
    "frozen",
    [
        (),
        ("vision_tower",),
        ("vision_tower", "projector"),
        ("language_model",),
        ("vision_tower", "language_model"),
    ],
)
def test_frozen_parts_stay_as_they_are_bit_for_bit(frozen: tuple[Part, ...]) -> None:
    model = deepcopy(LLM.model)
    freeze(model, frozen)
    held = {id(p) for group in build_optimizer(model).param_groups for p in group["params"]}
    assert held == {id(p) for name, p in model.named_parameters() if part_of(name) not in frozen}
    train(model)
    before = LLM.model.state_dict()
    moved = {
        part_of(name) for name, value in model.state_dict().items() if not torch.equal(before[name], value)
    }
    assert moved == set(PARTS) - set(frozen)


def test_nothing_is_kept_of_a_frozen_vision_tower_and_projector() -> None:
    model = deepcopy(LLM.model)
    freeze(model, ("vision_tower", "projector"))
    assert image_embeddings(model.train(), PIXELS).grad_fn is None


def test_gradient_checkpointing_gives_the_same_training_with_less_kept() -> None:
    def run(wanted: bool) -> tuple[list[float], dict[str, Tensor], int]:
        model = deepcopy(LLM.model)
        checkpoint_gradients(model, wanted)
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            SupervisedLoss(model.train())(PIXELS, batch())
        return train(model), model.state_dict(), kept

    losses, weights, kept = run(False)
    again, weights_again, kept_again = run(True)
    assert again == pytest.approx(losses, abs=1e-6)
    assert all(torch.allclose(weights[name], weights_again[name], atol=1e-6) for name in weights)
    assert kept_again < kept / 2
