"""What a base model is asked about a scene, as InternVL itself was: captions, places, descriptions."""

from typing import NamedTuple

import numpy as np

from alto_models.altollm.boxes import box_text, box_words, boxes_text
from alto_models.altollm.conversation import ADAPTIVE_SUFFIX, MASK_ANSWER, NO_TARGET_ANSWER
from alto_models.altollm.vocabulary import REFERENCE_END, REFERENCE_START
from jobs.base_pretraining.scenes import SceneNotes
from jobs.sample_scenes.expressions import VOCABULARY

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
    plain = " ".join(_TEXTS).replace("{boxes}", " ").replace("{mask}", " ").replace(".", " ")
    return {*plain.split(), *VOCABULARY, *box_words()}


class Turn(NamedTuple):
    """targets: indices of the things that the answer gives the place of, if that is what was asked for."""

    question: str
    answer: str
    targets: tuple[int, ...] = ()


def turns(note: SceneNotes, rng: np.random.Generator, *, locate: int, caption: bool) -> list[Turn]:
    """What is asked in one visit to a scene: `locate` places, a description, and perhaps a caption."""
    things = sorted(note.things, key=lambda thing: thing.box.left + thing.box.right)
    chosen = rng.permutation(len(note.questions))[:locate]
    found = [locate_turn(note, int(index), VERBS[int(rng.integers(len(VERBS)))]) for index in chosen]
    described = things[int(rng.integers(len(things)))]
    found.append(Turn(f"Describe {box_text(described.box)}.", described.words))
    if caption:
        found.append(
            Turn(CAPTION_PROMPT, " ".join(f"{thing.words}{box_text(thing.box)}" for thing in things))
        )
    return found


def locate_turn(note: SceneNotes, index: int, verb: str = VERBS[0]) -> Turn:
    """Where is what question `index` means? Boxes from left to right, or that there is none."""
    question = note.questions[index]
    boxes = boxes_text(note.things[target].box for target in question.targets)
    answer = PLACE_ANSWER.format(boxes=boxes) if boxes else NO_TARGET_ANSWER
    return Turn(f"{verb} {REFERENCE_START}{question.text}{REFERENCE_END}.", answer, question.targets)
