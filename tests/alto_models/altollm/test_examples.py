"""Examples as token ids: what is asked, what is answered, and how much each token of the answer counts."""

import pytest

from alto_models.altollm.conversation import NO_TARGET_ANSWER
from alto_models.altollm.examples import BranchMaker, Example, Turn
from tests.alto_models.altollm.tiny import untrained

LLM = untrained()
TARGET = Example(
    record_id="a", expressions=("red star",), codes=(3, 1, 4, 1, 5), length=2, rle=None, boxes=()
)
ABSENT = Example(record_id="b", expressions=("blue ring",), codes=(), length=0, rle=None, boxes=())


def maker(**options: float) -> BranchMaker:
    return BranchMaker(LLM.tokenizer, LLM.vocabulary, LLM.template, **options)


@pytest.mark.parametrize("adaptive", [False, True])
def test_answers_hold_all_codes_or_the_kept_ones(adaptive: bool) -> None:
    branch = maker().conversation([Turn(example=TARGET, expression="red star", adaptive=adaptive)])
    codes = LLM.vocabulary.encode(TARGET.codes[:2] if adaptive else TARGET.codes)
    answer = list(branch.ids[branch.prompt_length :])
    start, end = answer.index(LLM.vocabulary.start), answer.index(LLM.vocabulary.end)
    assert answer[start : end + 1] == list(codes)
    assert "adaptive" in LLM.tokenizer.decode(branch.ids[: branch.prompt_length]) or not adaptive


def test_codes_weigh_less_and_less() -> None:
    branch = maker(code_half_life=2.0).conversation(
        [Turn(example=TARGET, expression="red star", adaptive=False)]
    )
    start = list(branch.ids[branch.prompt_length :]).index(LLM.vocabulary.start)
    assert branch.weights[start + 1 : start + 6] == pytest.approx([1, 0.5**0.5, 0.5, 0.5**1.5, 0.25])
    assert set(branch.weights[: start + 1]) == {1.0}


def test_the_token_that_says_there_is_no_such_object_weighs_as_asked() -> None:
    branch = maker(no_target_weight=5.0).conversation(
        [Turn(example=ABSENT, expression="blue ring", adaptive=False)]
    )
    answer = branch.ids[branch.prompt_length :]
    assert NO_TARGET_ANSWER.lower() in LLM.tokenizer.decode(answer).lower()
    assert list(branch.weights) == [5.0] + [1.0] * (len(answer) - 1)
    assert set(
        maker(no_target_weight=5.0)
        .conversation([Turn(example=TARGET, expression="red star", adaptive=False)])
        .weights
    ) == {1.0}
