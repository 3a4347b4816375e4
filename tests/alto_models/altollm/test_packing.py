"""Questions packed behind one image score as in conversations of their own."""

import pytest
import torch

from alto_models.altollm.network import hidden_states, image_embeddings
from alto_models.altollm.packing import IGNORED, Branch, PackedBatch, pack
from alto_models.altollm.processor import normalise, square_thumbnail
from alto_models.altollm.supervised import score_answers
from tests.alto_models.altollm.tiny import NETWORK, picture, untrained

LLM = untrained()
IMAGE = image_embeddings(
    LLM.model, normalise(square_thumbnail(picture(3), NETWORK.image_size)[None])
).detach()
PREFIX = [1, *[LLM.model.config.image_token_id] * IMAGE.shape[1], 2]
BRANCHES = [
    Branch(ids=[20, 21, 22, 23, 24], prompt_length=2),
    Branch(ids=[30, 31, 32], prompt_length=1),
    Branch(ids=[40, 41, 42, 43], prompt_length=3),
]


def plain_losses(branch: Branch) -> torch.Tensor:
    """Loss of each learned token by the model's own forward pass on one unpacked conversation."""
    ids = torch.tensor([[*PREFIX, *branch.ids]])
    inputs = LLM.model.get_input_embeddings()(ids)
    inputs = inputs.masked_scatter((ids == LLM.model.config.image_token_id)[..., None], IMAGE)
    logits = LLM.model(inputs_embeds=inputs).logits[0]
    first = len(PREFIX) + branch.prompt_length
    targets = ids[0, first:]
    return torch.nn.functional.cross_entropy(logits[first - 1 : -1], targets, reduction="none")


def packed(rows: list[list[Branch]], prefix: list[int] = PREFIX) -> PackedBatch:
    return pack([prefix] * len(rows), rows, padding_id=0, image_token=LLM.model.config.image_token_id)


def packed_losses(rows: list[list[Branch]]) -> torch.Tensor:
    batch = packed(rows)
    scores = score_answers(LLM.model, IMAGE.expand(len(rows), -1, -1), batch)
    return torch.nn.functional.cross_entropy(scores.logits, scores.labels, reduction="none")


@torch.no_grad()
def test_packed_answers_score_as_in_conversations_of_their_own() -> None:
    expected = torch.cat([plain_losses(branch) for branch in BRANCHES])
    torch.testing.assert_close(packed_losses([BRANCHES]), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_padding_and_order_change_nothing() -> None:
    together = packed_losses([BRANCHES, BRANCHES[:1]])
    torch.testing.assert_close(together[-3:], packed_losses([BRANCHES[:1]]), atol=1e-5, rtol=0)
    turned = packed_losses([BRANCHES[:1], BRANCHES])
    torch.testing.assert_close(turned[3:], together[:-3], atol=1e-5, rtol=0)


def test_only_answers_are_learned() -> None:
    batch = packed([BRANCHES])
    learned = batch.labels[batch.labels != IGNORED].tolist()
    assert learned == batch.ids.flatten()[batch.learned].tolist() == [22, 23, 24, 31, 32, 43]


def test_an_image_of_another_number_of_tokens_is_refused() -> None:
    batch = packed([BRANCHES])
    with pytest.raises(ValueError, match="image tokens"):
        hidden_states(LLM.model, IMAGE[:, :-1], batch)
    longer = packed([BRANCHES], [*PREFIX, LLM.model.config.image_token_id])
    with pytest.raises(ValueError, match="image tokens"):
        hidden_states(LLM.model, IMAGE, longer)
