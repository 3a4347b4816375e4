"""`segment`: a mask of the image's size for each expression, whatever it is asked together with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from alto_models.altollm.api import Segmentation, Segmenter, SegmentLimits
from alto_models.altollm.conversation import segment_prompt
from alto_models.altollm.scoring import Group, answer_log_probs
from alto_models.checkpoint import save_checkpoint
from alto_models.data.files import MAX_SIDE
from alto_models.tokenizer.model import MaskTokenizer
from data_contracts.errors import InputError
from tests.alto_models.altollm.scripted import scripted
from tests.alto_models.altollm.tiny import CODES, picture, untrained
from tests.alto_models.tokenizer.tiny import TINY

TOKENIZER = TINY.model_copy(update={"codebook_size": CODES})
LIMITS = SegmentLimits(image_pixels=5000, expressions=5, text_length=40)
EXPRESSIONS = ["the red star", "blue", "left of the star", "ring", "star"]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(scripted(untrained()), MaskTokenizer(TOKENIZER), limits=LIMITS, batch_size=2)


@pytest.mark.parametrize("size", [(40, 56), (64, 30), (1, 90)])
def test_every_expression_gets_a_mask_of_the_images_size(segmenter: Segmenter, size: tuple[int, int]) -> None:
    found = segmenter.segment(picture(1, *size), EXPRESSIONS)
    assert [one.expression for one in found] == EXPRESSIONS
    for one in found:
        assert one.mask.shape == size
        assert one.mask.dtype == np.bool_
        read = coco.decode({"size": list(one.rle.size), "counts": one.rle.counts.encode()})
        assert np.array_equal(read, one.mask)
        assert one.length == len(one.codes) <= TOKENIZER.max_length
        assert all(0 <= code < CODES for code in one.codes)
        assert Segmentation.model_validate_json(one.model_dump_json()) == one


def test_no_target_and_malformed_have_no_mask_and_say_so(segmenter: Segmenter) -> None:
    said = {one.expression: one for one in segmenter.segment(picture(1), EXPRESSIONS)}
    for name, no_target, malformed in (("blue", True, False), ("ring", False, True), ("star", False, False)):
        assert (said[name].no_target, said[name].malformed) == (no_target, malformed)
    for name in ("blue", "ring"):
        assert (said[name].codes, said[name].length, said[name].mask.any()) == ((), 0, False)
    assert said["blue"].answer.startswith("there is no such object")
    assert said["star"].length >= 1


def test_several_expressions_equal_one_by_one(segmenter: Segmenter) -> None:
    image = picture(2)
    together = segmenter.segment(image, EXPRESSIONS)
    for one, expression in zip(together, EXPRESSIONS, strict=True):
        (alone,) = segmenter.segment(image, [expression])
        assert alone.score == pytest.approx(one.score, abs=1e-5)
        assert alone.model_copy(update={"score": one.score}) == one


@pytest.mark.parametrize("most", [1, 2, 99])
def test_max_tokens_caps_the_codes(segmenter: Segmenter, most: int) -> None:
    full = segmenter.segment(picture(3), ["star"])[0].codes
    (found,) = segmenter.segment(picture(3), ["star"], max_tokens=most)
    assert found.codes == full[:most]
    assert found.length == min(most, len(full))


def test_the_score_is_the_mean_probability_of_the_codes(segmenter: Segmenter) -> None:
    """Against the probabilities that training computes of a whole answer at once."""
    llm, image = segmenter.llm, picture(4)
    (found,) = segmenter.segment(image, ["the red star"])
    ids = [*llm.vocabulary.encode(found.codes), llm.turn_end]
    prompt = llm.template.question_ids(llm.tokenizer, segment_prompt("the red star", adaptive=True))
    seen = llm.encode_images([image])
    with torch.no_grad():
        scored = answer_log_probs(
            llm.model,
            untrained().grammar,
            seen,
            llm.prefixes(seen),
            [Group(prompt=prompt, answers=[ids])],
            max_length=TOKENIZER.max_length,
            temperature=1.0,
            padding_id=llm.turn_end,
        )
    expected = scored.log_probs[0, 1 : 1 + found.length].exp().mean()
    assert found.score == pytest.approx(float(expected), abs=1e-4)
    assert 0 < found.score < 1


def test_an_image_is_encoded_once(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for owner, name in ((segmenter.llm, "encode_images"), (segmenter.tokenizer, "encode_image")):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda images, f=original, n=name: seen.append(n) or f(images))
    segmenter.segment(picture(1), EXPRESSIONS)
    assert sorted(seen) == ["encode_image", "encode_images"]


@pytest.mark.parametrize(
    ("size", "expressions", "max_tokens", "line"),
    [
        ((40, 50), [], None, "an image takes 1 to 5 expressions, got 0"),
        ((40, 50), ["star"] * 6, None, "an image takes 1 to 5 expressions, got 6"),
        ((40, 50), ["star", " \n"], None, "expression 2 is empty"),
        ((40, 50), ["s" * 41], None, "expression 1 has 41 characters, more than 40"),
        ((40, 50), ["a\udc80b"], None, "expression 1 is not valid Unicode"),
        ((40, 50), ["a<ALTo_Start>b"], None, "expression 1 holds '<ALTo_Start>'"),
        ((40, 50), ["star"], 0, "max_tokens is at least 1, got 0"),
        ((100, 51), ["star"], None, "the image has 51 x 100 pixels, more than 5,000"),
        ((1, MAX_SIDE + 1), ["star"], None, f"at most {MAX_SIDE} pixels a side"),
    ],
)
def test_what_is_beyond_the_limits_is_one_clear_line(
    segmenter: Segmenter, size: tuple[int, int], expressions: list[str], max_tokens: int | None, line: str
) -> None:
    with pytest.raises(InputError, match=line) as refused:
        segmenter.segment(picture(1, *size), expressions, max_tokens=max_tokens)
    assert "\n" not in str(refused.value)


def test_folders_give_the_same_and_another_codebook_is_refused(segmenter: Segmenter, tmp_path: Path) -> None:
    untrained().save(tmp_path / "altollm")
    for name, config in (("same", TOKENIZER), ("other", TINY)):
        save_checkpoint(tmp_path / name, config, MaskTokenizer(config).state_dict())
    loaded = Segmenter.from_folders(tmp_path / "altollm", tmp_path / "same", limits=LIMITS)
    assert loaded.segment(picture(1), ["blue"])[0].mask.shape == picture(1).shape[:2]
    with pytest.raises(InputError, match="knows 8 mask tokens, the mask tokenizer has 32 codes"):
        Segmenter.from_folders(tmp_path / "altollm", tmp_path / "other")
    with pytest.raises(InputError, match="same: not an InternVL checkpoint"):
        Segmenter.from_folders(tmp_path / "same", tmp_path / "same")
