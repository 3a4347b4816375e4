"""The loss of decoded masks: what it compares, and where its gradient goes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from alto_models import masks as mask_arithmetic
from alto_models.altollm.mask_loss import MaskLoss, MaskLossSettings, MaskTargets, code_places
from alto_models.altollm.packing import IGNORED, Branch, pack
from alto_models.altollm.supervised import SupervisedLoss, score_answers
from alto_models.altollm.vocabulary import padding_id
from alto_models.tokenizer.losses import bce_loss, dice_loss
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.whole_image import embed_whole_image, mask_grids
from tests.alto_models.altollm.tiny import CODES, picture, untrained
from tests.alto_models.tokenizer.tiny import TINY

SETTINGS = MaskLossSettings(weight=1.0, dice_weight=0.25, sharpness=2.0)
LLM = untrained()
# Two masks of the first image, one of the second; a text answer lies between them.
ANSWERS = [(3, 1, 4, 1, 5), (2, 6), (5, 3, 5, 0)]
IMAGE_OF = [0, 0, 1]


def half(height: int, width: int, *, left: bool) -> mask_arithmetic.Rle:
    mask = np.zeros((height, width), dtype=bool)
    mask[:, : width // 2] = left
    mask[:, width // 2 :] = not left
    return mask_arithmetic.encode(mask)


def labels() -> Tensor:
    vocabulary = LLM.vocabulary
    spoken = [token for codes in ANSWERS for token in [LLM.turn_end, *vocabulary.encode(codes), LLM.turn_end]]
    return torch.tensor(spoken)


PICTURES = [picture(1), picture(2, 30, 24)]
TARGETS = MaskTargets(
    pictures=PICTURES,
    image_of=IMAGE_OF,
    masks=[half(40, 56, left=True), half(40, 56, left=False), half(30, 24, left=True)],
    ignored=[None, None, None],
    lengths=[len(codes) for codes in ANSWERS],
    places=torch.isin(labels(), torch.tensor(LLM.vocabulary.codes)).nonzero()[:, 0],
)


@pytest.fixture(scope="module")
def tokenizer() -> MaskTokenizer:
    torch.manual_seed(5)
    return MaskTokenizer(TINY.model_copy(update={"codebook_size": CODES})).eval()


def test_certain_codes_cost_what_decoding_them_costs(tokenizer: MaskTokenizer) -> None:
    said = labels()
    logits = torch.full((len(said), LLM.model.config.text_config.vocab_size), -50.0)
    logits[torch.arange(len(said)), said] = 50.0
    bce, dice = MaskLoss(tokenizer, LLM.vocabulary, SETTINGS).of_masks(logits, TARGETS)
    for index, codes in enumerate(ANSWERS):
        decoded = tokenizer.decode(
            torch.tensor([codes]),
            torch.tensor([len(codes)]),
            embed_whole_image(tokenizer, [PICTURES[IMAGE_OF[index]]]),
        )
        truth = mask_grids(tokenizer, [TARGETS.masks[index]])[:, 0]
        assert bce[index].item() == pytest.approx(bce_loss(decoded, truth).item(), abs=1e-6)
        assert dice[index].item() == pytest.approx(dice_loss(decoded, truth).item(), abs=1e-6)


def test_pixels_that_count_neither_way_cost_nothing(tokenizer: MaskTokenizer) -> None:
    """Whatever truth says of the second mask's left half, and whatever is decoded there."""
    logits = torch.randn(len(labels()), LLM.model.config.text_config.vocab_size)
    loss = MaskLoss(tokenizer, LLM.vocabulary, SETTINGS)
    left = half(40, 56, left=True)
    everything = mask_arithmetic.encode(np.ones((40, 56), dtype=bool))

    def costs(mask: mask_arithmetic.Rle, ignored: mask_arithmetic.Rle | None) -> Tensor:
        masks = [TARGETS.masks[0], mask, TARGETS.masks[2]]
        return torch.stack(
            loss.of_masks(logits, replace(TARGETS, masks=masks, ignored=[None, ignored, None]))
        )

    assert torch.equal(costs(TARGETS.masks[1], left), costs(everything, left))
    assert not torch.equal(costs(TARGETS.masks[1], None), costs(everything, None))
    assert costs(everything, left)[0, 1] < costs(everything, None)[0, 1]  # BCE
    others = [0, 2]
    assert torch.equal(costs(everything, left)[:, others], costs(everything, None)[:, others])


def test_the_weights_add_up(tokenizer: MaskTokenizer) -> None:
    said = labels()
    logits = torch.randn(len(said), LLM.model.config.text_config.vocab_size)
    loss = MaskLoss(tokenizer, LLM.vocabulary, SETTINGS.model_copy(update={"weight": 0.5}))
    bce, dice = loss.of_masks(logits, TARGETS)
    figures = loss(logits, TARGETS)
    assert figures["mask_loss"].item() == pytest.approx(0.5 * (bce.mean() + 0.25 * dice.mean()).item())


def test_only_logits_of_codes_where_codes_stand_get_a_gradient(tokenizer: MaskTokenizer) -> None:
    said = labels()
    logits = torch.randn(len(said), LLM.model.config.text_config.vocab_size, requires_grad=True)
    MaskLoss(tokenizer, LLM.vocabulary, SETTINGS)(logits, TARGETS)["mask_loss"].backward()
    codes = torch.tensor(LLM.vocabulary.codes)
    expected = torch.isin(said, codes)[:, None] & torch.isin(torch.arange(logits.shape[1]), codes)
    assert torch.equal(logits.grad != 0, expected)
    assert all(parameter.grad is None for parameter in tokenizer.parameters())


def test_sharper_means_nearer_to_the_likeliest_code(tokenizer: MaskTokenizer) -> None:
    said = labels()
    logits = torch.randn(len(said), LLM.model.config.text_config.vocab_size)
    loss = MaskLoss(tokenizer, LLM.vocabulary, SETTINGS)
    places = torch.isin(said, torch.tensor(LLM.vocabulary.codes))
    expected = (2.0 * logits[places][:, list(LLM.vocabulary.codes)]).softmax(1)
    assert torch.equal(loss.code_probabilities(logits, TARGETS.places), expected)


def test_each_image_is_encoded_once(tokenizer: MaskTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode_image = tokenizer.encode_image
    monkeypatch.setattr(tokenizer, "encode_image", lambda x: encoded.append(len(x)) or encode_image(x))
    logits = torch.randn(len(labels()), LLM.model.config.text_config.vocab_size)
    MaskLoss(tokenizer, LLM.vocabulary, SETTINGS)(logits, TARGETS)
    assert encoded == [len(PICTURES)]


def test_answers_and_masks_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="11 codes in the answers, 10 in their masks"):
        replace(TARGETS, lengths=[5, 2, 3])


@pytest.mark.parametrize("with_masks", [True, False])
def test_it_adds_to_the_cross_entropy_of_a_packed_batch(tokenizer: MaskTokenizer, with_masks: bool) -> None:
    prompt = LLM.template.question_ids(LLM.tokenizer, "Segment the star")
    said = [LLM.vocabulary.encode(codes) if with_masks else [LLM.turn_end] for codes in ANSWERS]
    branches = [Branch(ids=[*prompt, *ids, LLM.turn_end], prompt_length=len(prompt)) for ids in said]
    batch = pack(
        [LLM.prefix(LLM.model.config.image_seq_length)] * 2,
        [branches[:2], branches[2:]],
        padding_id=padding_id(LLM.tokenizer),
        image_token=LLM.model.config.image_token_id,
    )
    places = code_places(batch, LLM.vocabulary)
    none = MaskTargets(pictures=[], image_of=[], masks=[], ignored=[], lengths=[], places=places[:0])
    targets = replace(TARGETS, places=places) if with_masks else none
    pixels = torch.randn(2, 3, 32, 32)
    mask_loss = MaskLoss(tokenizer, LLM.vocabulary, SETTINGS)
    plain = SupervisedLoss(LLM.model)(pixels, batch)
    figures = SupervisedLoss(LLM.model, mask_loss)(pixels, batch, targets)
    scores = score_answers(LLM.model, LLM.model.get_image_features(pixels).pooler_output, batch)
    expected = mask_loss(scores.logits, targets)["mask_loss"]
    assert figures["loss"].item() == pytest.approx((plain["loss"] + expected).item())
    assert (expected.item() > 0) == with_masks
    assert IGNORED not in scores.labels
