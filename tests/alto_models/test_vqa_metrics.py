"""Scores of POPE, VQAv2 and MME against hand-computed cases and independent few-line references."""

import random
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_models.vqa_metrics import (
    mme_answer,
    mme_score,
    pope_answer,
    pope_score,
    vqa_accuracy,
    vqa_answer,
    vqa_without_punctuation,
)
from data_contracts.vqa import MME_COGNITION, MME_PERCEPTION


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "yes"),
        ("no", "no"),
        ("No, there is no car. Yes.", "no"),
        ("There is not a car", "no"),
        ("Yes. But not here", "yes"),
        ("NO", "yes"),
        ("nothing", "yes"),
        ("", "yes"),
        ("a car, no", "no"),
        ("yes,no", "yes"),
    ],
)
def test_pope_takes_an_answer_for_no_by_single_words(text: str, answer: str) -> None:
    assert pope_answer(text) == answer


def test_pope_scores_of_a_small_table() -> None:
    answers = ["yes"] * 4 + ["no"] * 3
    labels = ["yes", "yes", "yes", "no", "no", "no", "yes"]
    score = pope_score(answers, labels)
    assert (score.questions, score.precision, score.recall, score.f1) == (7, 0.75, 0.75, 0.75)
    assert score.accuracy == pytest.approx(5 / 7)
    assert score.yes_ratio == pytest.approx(4 / 7)


def test_pope_undefined_shares_are_zero() -> None:
    score = pope_score(["no", "no"], ["no", "no"])
    assert (score.accuracy, score.precision, score.recall, score.f1, score.yes_ratio) == (1, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="no answer"):
        pope_score([], [])


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_pope_agrees_with_sums_over_a_confusion_matrix(pairs: list[tuple[bool, bool]]) -> None:
    words = {True: "yes", False: "no"}
    score = pope_score([words[a] for a, _ in pairs], [words[b] for _, b in pairs])
    tp, fp, fn = (pairs.count(cell) for cell in ((True, True), (True, False), (False, True)))
    assert score.accuracy == pytest.approx((tp + pairs.count((False, False))) / len(pairs))
    assert score.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The two dogs.", "2 dogs"),
        ("A  man\nand\ta woman", "man and woman"),
        ("dont know", "don't know"),
        ("couldn'tve", "couldn't've"),
        ("Yall'd've", "y'all'd've"),
        ("none", "0"),
        ("10,000 people", "10000 people"),
        ("red/white", "red white"),
        ("red / white", "red white"),
        ("well-known", "well known"),
        ("3.5", "3.5"),
        ("St. Mary's", "st mary's"),
        ("what?", "what"),
        ("somebody'd", "somebodyd"),
        ("lets", "lets"),
        ("eleven", "eleven"),
        ("", ""),
    ],
)
def test_vqa_answers_are_normalised_as_the_official_scorer_does(text: str, answer: str) -> None:
    assert vqa_answer(text) == answer


def test_vqa_accuracy_by_hand() -> None:
    people = ["two", "2", "2", "2", "three", "2", "4", "5", "6", "7"]
    # Four said 2: left out by one of them, three remain; left out by another, four.
    assert vqa_accuracy("Two", people) == 1
    assert vqa_accuracy("three", people) == 0  # the answer becomes 3, what people said does not
    two_agree = ["cat", "cat", *"abcdefgh"]
    assert vqa_accuracy("a cat", two_agree) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert vqa_accuracy("dog", two_agree) == 0
    assert vqa_accuracy("yes", ["yes"] * 10) == 1
    # Where all agree their punctuation stays, and the answer's does not.
    assert vqa_accuracy("don't, know", ["don't, know"] * 10) == 0
    assert vqa_accuracy("don't, know", ["don't, know"] * 9 + ["no"]) == 1


def reference_accuracy(given_answer: str, people: list[str]) -> float:
    total = 0.0
    for left_out in range(len(people)):
        others = people[:left_out] + people[left_out + 1 :]
        total += min(1, others.count(given_answer) / 3)
    return total / len(people)


def test_vqa_accuracy_on_a_thousand_random_cases() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        people = [rng.choice("pqrst") for _ in range(10)]
        text = rng.choice("pqrstu")
        assert vqa_accuracy(text, people) == pytest.approx(reference_accuracy(text, people))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=string.ascii_lowercase + string.digits + " .,;/[]\"{}()=+\\_-><@`?!'", max_size=30))
def test_vqa_punctuation_agrees_with_one_pass_over_the_characters(text: str) -> None:
    number = re.search("[0-9],[0-9]", text)
    kept = []
    for character in text:
        if character in ';/[]"{}()=+\\_-><@`,?!':
            dropped = number or character + " " in text or " " + character in text
            kept.append("" if dropped else " ")
        else:
            kept.append(character)
    joined = "".join(kept)
    expected = [
        c for i, c in enumerate(joined) if c != "." or (i + 1 < len(joined) and joined[i + 1].isdigit())
    ]
    assert vqa_without_punctuation(text) == "".join(expected)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "yes"),
        ("No.", "no"),
        ("no, it is", "no"),
        ("The answer is yes", "other"),
        ("", "other"),
        (" yes", "yes"),
        ("  yes", "other"),
        ("know", "no"),
        ("yeno", "no"),
    ],
)
def test_mme_looks_at_four_characters(text: str, answer: str) -> None:
    assert mme_answer(text) == answer


def test_mme_score_by_hand() -> None:
    results = [
        ("count", "1", True),
        ("count", "1", True),
        ("count", "2", True),
        ("count", "2", False),
        ("OCR", "1", True),
        ("OCR", "1", True),
        ("code_reasoning", "1", False),
        ("code_reasoning", "1", False),
        ("color", "1", True),  # the other question was quarantined
    ]
    score = mme_score(results)
    assert score.subtasks == {"count": 75 + 50, "OCR": 200, "code_reasoning": 0, "color": 100}
    assert (score.perception, score.cognition) == (425, 0)


def test_mme_at_best() -> None:
    score = mme_score(
        (task, image, True) for task in (*MME_PERCEPTION, *MME_COGNITION) for image in "ab" for _ in "12"
    )
    assert (score.perception, score.cognition) == (2000, 800)
