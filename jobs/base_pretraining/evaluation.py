"""How well a base model finds what an expression means."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from alto_models.altollm.boxes import BINS, square_names
from alto_models.altollm.network import hidden_states, image_embeddings
from alto_models.altollm.packing import pack
from alto_models.altollm.processor import normalise
from jobs.base_pretraining.batches import BaseBatches
from jobs.base_pretraining.questions import locate_turn
from jobs.base_pretraining.scenes import ScenePool, Thing

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration

_BATCH = 16
_QUESTIONS = 6  # of one scene
_EDGES = 4


@torch.no_grad()
def locating(
    model: "InternVLForConditionalGeneration", maker: BaseBatches, scenes: ScenePool
) -> dict[str, float]:
    """Expressions with one target: share of right squares, of greedy boxes whose centre is in the target's
    box, mean box IoU, and what picking any of the scene's things would give."""
    numbers = torch.tensor(maker.tokenizer.convert_tokens_to_ids([str(number) for number in range(BINS)]))
    squares = torch.tensor(maker.tokenizer.convert_tokens_to_ids(square_names()))
    right_square: list[bool] = []
    hits, overlaps, chance = [], [], []
    for start in range(0, len(scenes), _BATCH):
        rows = range(start, min(start + _BATCH, len(scenes)))
        image = image_embeddings(model, normalise(scenes.images[rows.start : rows.stop]))
        asked = [_single(scenes, row) for row in rows]
        branches = [
            [maker.branch(locate_turn(scenes.notes[row], q)) for q in mine]
            for row, mine in zip(rows, asked, strict=True)
        ]
        batch = pack(
            [maker.prefix] * len(rows),
            branches,
            padding_id=maker.padding,
            image_token=model.config.image_token_id,
        )
        places, targets = [], []
        for row, (mine, questions) in enumerate(zip(branches, asked, strict=True)):
            position = len(maker.prefix)
            for branch, question in zip(mine, questions, strict=True):
                first_box = branch.ids.index(maker.box_start, branch.prompt_length)
                places.append((row, position + first_box + 1))
                note = scenes.notes[rows[row]]
                targets.append(note.things[note.questions[question].targets[0]])
                chance.append(1 / len(note.things))
                position += len(branch.ids)
        row_Q, first_Q = torch.tensor(places).T  # noqa: N806
        ids = batch.ids.clone()
        for place, allowed in enumerate((squares, *[numbers] * _EDGES)):
            hidden = hidden_states(model, image, replace(batch, ids=ids))[row_Q, first_Q + place - 1]
            ids[row_Q, first_Q + place] = allowed[model.lm_head(hidden)[:, allowed].argmax(1)]
        right_square += (ids == batch.ids)[row_Q, first_Q].tolist()
        found = torch.stack([ids[row_Q, first_Q + 1 + edge] for edge in range(_EDGES)], 1)
        for box, target in zip(
            (found[:, :, None] == numbers).int().argmax(-1).tolist(), targets, strict=True
        ):
            hits.append(_centre_inside(box, target))
            overlaps.append(_iou(box, target.box))
    return {
        "right_square": float(np.mean(right_square)),
        "centre_inside": float(np.mean(hits)),
        "box_iou": float(np.mean(overlaps)),
        "any_thing": float(np.mean(chance)),
    }


def _single(scenes: ScenePool, row: int) -> list[int]:
    questions = scenes.notes[row].questions
    return [index for index, question in enumerate(questions) if len(question.targets) == 1][:_QUESTIONS]


def _centre_inside(box: list[int], target: Thing) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, top, right, bottom = target.box
    return left <= x <= right and top <= y <= bottom


def _iou(first: list[int], second: tuple[int, ...]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0]) + 1
    height = min(first[3], second[3]) - max(first[1], second[1]) + 1
    both = max(width, 0) * max(height, 0)
    areas = [max(b[2] - b[0] + 1, 0) * max(b[3] - b[1] + 1, 0) for b in (first, second)]
    return both / (sum(areas) - both)
