"""Official scores of POPE, VQAv2 and MME, from the texts of the answers.

Each follows its publisher's scorer, oddities included, for only then can figures be compared with published ones:
POPE's `evaluate.py` (Li et al. 2023, arXiv 2305.10355), VQA's `vqaEval.py` (Goyal et al. 2017, arXiv 1612.00837, §4),
MME's `calculation.py` (Fu et al. 2023, arXiv 2306.13394, §2).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data_contracts.vqa import MME_COGNITION, MME_PERCEPTION

# --- POPE


def pope_answer(text: str) -> str:
    """ "no" where the first sentence has the word No, no or not, else "yes"."""
    words = text.partition(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


@dataclass(frozen=True, kw_only=True)
class PopeScore:
    """Shares from 0 to 1, "yes" being the positive class. precision, recall and f1 are 0 where nothing defines them."""

    questions: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float


def pope_score(answers: Sequence[str], labels: Sequence[str]) -> PopeScore:
    """answers: texts of the model; labels: "yes" or "no". Raises ValueError where there is none."""
    said = [pope_answer(text) == "yes" for text in answers]
    true = [label == "yes" for label in labels]
    if not said:
        raise ValueError("no answer to score")
    hits = sum(a and b for a, b in zip(said, true, strict=True))
    precision, recall = _share(hits, sum(said)), _share(hits, sum(true))
    return PopeScore(
        questions=len(said),
        accuracy=_share(sum(a == b for a, b in zip(said, true, strict=True)), len(said)),
        precision=precision,
        recall=recall,
        f1=_share(2 * precision * recall, precision + recall),
        yes_ratio=_share(sum(said), len(said)),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


# --- VQAv2

ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = "zero one two three four five six seven eight nine ten"
NUMBERS = {word: str(number) for number, word in enumerate(_NUMBERS.split())} | {"none": "0"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_WITH_APOSTROPHES = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've "
    "might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've "
    "shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll "
    "someone's something'd something'd've something'll that's there'd there'd've there're there's they'd "
    "they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've "
    "when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't "
    "would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
)
# A word that lacks one of its apostrophes; the one entry that takes an apostrophe away is the scorer's own.
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _WITH_APOSTROPHES.split()
    for place, character in enumerate(word)
    if character == "'"
} | {"somebody'd": "somebodyd"}
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_TAKEN = 32  # the scorer passes a flag of this value where a count is expected
AGREEING = 3  # people who must have given an answer for it to count fully


def vqa_without_punctuation(text: str) -> str:
    """Marks are dropped where one has a space beside it or a number has a comma, else they become spaces."""
    result = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space or _COMMA_IN_NUMBER.search(text) else " ")
    return _PERIOD.sub("", result, count=_PERIODS_TAKEN)


def vqa_answer(text: str) -> str:
    """A model's answer as it is compared: without punctuation and articles, numbers to ten as digits, small letters."""
    text = vqa_without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(text: str, answers: Sequence[str]) -> float:
    """Soft accuracy, 0 to 1: over every nine of the ten people, min(1, how many of the nine said it / 3), averaged.

    What people said is stripped of punctuation where they differ, and otherwise taken as it is.
    """
    given = vqa_answer(text)
    people = (
        [vqa_without_punctuation(answer) for answer in answers] if len(set(answers)) > 1 else list(answers)
    )
    same = sum(answer == given for answer in people)
    return sum(min(1.0, (same - (answer == given)) / AGREEING) for answer in people) / len(people)


# --- MME


def mme_answer(text: str) -> str:
    """ "yes" or "no" where the first four characters hold it, else "other", which is always wrong."""
    start = text.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


@dataclass(frozen=True, kw_only=True)
class MmeScore:
    """subtasks: score of each, 0 to 200: percent of questions right plus percent of images with both right.

    perception and cognition: sums over their subtasks, at most 2,000 and 800.
    """

    subtasks: Mapping[str, float]
    perception: float
    cognition: float


def mme_score(results: Iterable[tuple[str, str, bool]]) -> MmeScore:
    """results: subtask, image and whether the answer is right, one a question. An image without both of its questions
    counts among the questions only."""
    of_subtask: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for subtask, image, right in results:
        of_subtask[subtask][image].append(right)
    scores = {}
    for subtask, of_image in of_subtask.items():
        questions = [right for answers in of_image.values() for right in answers]
        pairs = [all(answers) for answers in of_image.values() if len(answers) == 2]
        scores[subtask] = 100 * (_share(sum(questions), len(questions)) + _share(sum(pairs), len(pairs)))
    return MmeScore(
        subtasks=scores,
        perception=sum(scores.get(name, 0.0) for name in MME_PERCEPTION),
        cognition=sum(scores.get(name, 0.0) for name in MME_COGNITION),
    )
