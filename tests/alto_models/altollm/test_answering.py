"""What the token ids of an answer are read as."""

import pytest

from tests.alto_models.altollm.tiny import untrained

LLM = untrained()
START, END, STOP = LLM.vocabulary.start, LLM.vocabulary.end, LLM.turn_end


def mask(*codes: int) -> list[int]:
    return list(LLM.vocabulary.encode(codes))


def words(text: str) -> list[int]:
    return LLM.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_an_answer_can_hold_several_masks() -> None:
    answer = LLM.read([*words("the red"), *mask(3, 1), *words("the blue"), *mask(4), STOP])
    assert answer.masks == ((3, 1), (4,))
    assert (answer.codes, answer.length) == ((3, 1), 2)
    assert answer.text == "the red the blue"
    assert not answer.malformed


@pytest.mark.parametrize(
    ("ids", "masks"),
    [
        ([*mask(3), *mask(4)[:-1], STOP], ((3,),)),  # the second is not closed
        ([*mask(3)[:-1], *mask(4), STOP], ((4,),)),  # the first runs into the second
        ([START, END, STOP], ()),
        ([START, *words("red"), END, STOP], ()),
        (mask(3), ((3,),)),  # the answer does not end
        ([*words("There is no such object"), *mask(3)[:-1], STOP], ()),
        ([*words("the red star"), STOP], ()),
        ([], ()),
    ],
)
def test_masks_and_answers_that_do_not_end_are_malformed(
    ids: list[int], masks: tuple[tuple[int, ...], ...]
) -> None:
    answer = LLM.read(ids)
    assert answer.malformed
    assert answer.masks == masks
    assert not answer.no_target


def test_a_refusal_is_no_mask() -> None:
    answer = LLM.read([*words("There is no such object."), STOP])
    assert answer.no_target
    assert not answer.malformed
    assert (answer.codes, answer.length) == ((), 0)
