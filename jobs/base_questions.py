"""What a base model is asked about a scene, as InternVL itself was: captions, places, descriptions."""

import string
from typing import NamedTuple

import numpy as np

from alto_models.altollm.conversation import ADAPTIVE_SUFFIX, MASK_ANSWER, NO_TARGET_ANSWER
from alto_models.altollm.vocabulary import BOX_END, BOX_START, REFERENCE_END, REFERENCE_START
from jobs.base_scenes import BINS, SceneNotes, Thing
from jobs.sample_scenes.expressions import VOCABULARY

SQUARES = 12  # a side of the image
CAPTION_PROMPT = "Describe the image."
# A segmentation model is asked with these words too, and answers in the same form with another kind of place.
VERBS = ("Locate", "Segment")
PLACE_ANSWER = "The box appears at {boxes}."
_TEXTS = (
    CAPTION_PROMPT,
    *VERBS,
    "Describe",
    PLACE_ANSWER.format(boxes=""),
    ADAPTIVE_SUFFIX,
    MASK_ANSWER,
    NO_TARGET_ANSWER,
)


def words() -> set[str]:
    """Every word of prompts, answers, expressions and coordinates."""
    plain = " ".join(_TEXTS).replace("{mask}", " ").replace(".", " ")
    return {*plain.split(), *VOCABULARY, *(str(number) for number in range(BINS)), *square_names()}


def square_names() -> list[str]:
    return [_square(row, column) for row in range(SQUARES) for column in range(SQUARES)]


def box_text(thing: Thing) -> str:
    """The square of the box's centre, then left, top, right and bottom edge, as in `<box>c7 4 12 9 15</box>`.

    The square comes first because it says in one token where the box is, as the first code of a mask does.
    """
    left, top, right, bottom = thing.box
    column, row = ((low + high + 1) * SQUARES // (2 * BINS) for low, high in ((left, right), (top, bottom)))
    return f"{BOX_START}{' '.join([_square(row, column), *map(str, thing.box)])}{BOX_END}"


def _square(row: int, column: int) -> str:
    """Name of a square of the image as on a chess board, letters for columns, rows counted from 1."""
    return f"{string.ascii_lowercase[column]}{row + 1}"


class Turn(NamedTuple):
    """targets: indices of the things that the answer gives the place of, if that is what was asked for."""

    question: str
    answer: str
    targets: tuple[int, ...] = ()


def turns(note: SceneNotes, rng: np.random.Generator, *, locate: int, caption: bool) -> list[Turn]:
    """What is asked in one visit to a scene: `locate` places, a description, and perhaps a caption."""
    things = sorted(note.things, key=_left_to_right)
    chosen = rng.permutation(len(note.questions))[:locate]
    found = [locate_turn(note, int(index), VERBS[int(rng.integers(len(VERBS)))]) for index in chosen]
    described = things[int(rng.integers(len(things)))]
    found.append(Turn(f"Describe {box_text(described)}.", described.words))
    if caption:
        found.append(Turn(CAPTION_PROMPT, " ".join(f"{thing.words}{box_text(thing)}" for thing in things)))
    return found


def locate_turn(note: SceneNotes, index: int, verb: str = VERBS[0]) -> Turn:
    """Where is what question `index` means? Boxes from left to right, or that there is none."""
    question = note.questions[index]
    meant = sorted((note.things[target] for target in question.targets), key=_left_to_right)
    boxes = "".join(box_text(thing) for thing in meant)
    answer = PLACE_ANSWER.format(boxes=boxes) if boxes else NO_TARGET_ANSWER
    return Turn(f"{verb} {REFERENCE_START}{question.text}{REFERENCE_END}.", answer, question.targets)


def _left_to_right(thing: Thing) -> int:
    return thing.box[0] + thing.box[2]
