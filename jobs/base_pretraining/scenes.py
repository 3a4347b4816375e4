"""Scenes for pre-training the base model: small images, dense labels, and what can be asked about them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from alto_models.altollm.boxes import BoxBins, box_bins
from alto_models.altollm.processor import square_thumbnail
from jobs.sample_scenes.expressions import describe, expressions_for
from jobs.sample_scenes.scene import Scene, SceneConfig, draw_scene
from jobs.sample_scenes.seeds import scene_rng

CELL = 4  # pixels of the thumbnail a side of one labelled cell
SCENES_A_FILE = 500
_PER_OBJECT, _MULTIPLE, _NO_TARGET = 4, 4, 3


class Thing(BaseModel):
    """One object: its words and its box."""

    model_config = ConfigDict(frozen=True)

    words: str
    shape: str
    colour: str
    fill: str
    box: BoxBins


class Question(BaseModel):
    """An expression and the indices of the things it means."""

    model_config = ConfigDict(frozen=True)

    text: str
    targets: tuple[int, ...]


class SceneNotes(BaseModel):
    model_config = ConfigDict(frozen=True)

    things: tuple[Thing, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, kw_only=True)
class ScenePool:
    """N scenes. images: (N, S, S, 3) uint8. cells: (N, S / CELL, S / CELL) int8, index of the thing that
    covers the centre of the cell, -1 for none."""

    images: NDArray[np.uint8]
    cells: NDArray[np.int8]
    notes: list[SceneNotes]

    def __len__(self) -> int:
        return len(self.notes)


def write_scenes(path: Path, seed: int, first: int, image_size: int) -> None:
    """Draw scenes `first` … `first + SCENES_A_FILE - 1` of the purpose `base_pretraining` into an npz file."""
    images, cells, notes = [], [], []
    for index in range(first, first + SCENES_A_FILE):
        rng = scene_rng(seed, "base_pretraining", index)
        scene = draw_scene(rng, SceneConfig())
        images.append(square_thumbnail(scene.image, image_size))
        cells.append(_owners(scene, image_size // CELL))
        notes.append(_notes(scene, rng).model_dump(mode="json"))
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, images=np.stack(images), cells=np.stack(cells), notes=json.dumps(notes))
    partial.rename(path)


def read_scenes(paths: list[Path]) -> ScenePool:
    images, cells, notes = [], [], []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            images.append(file["images"])
            cells.append(file["cells"])
            notes += [SceneNotes.model_validate(item) for item in json.loads(str(file["notes"]))]
    return ScenePool(images=np.concatenate(images), cells=np.concatenate(cells), notes=notes)


def _owners(scene: Scene, cells_a_side: int) -> NDArray[np.int8]:
    height, width = scene.image.shape[:2]
    owner = np.zeros((height, width), dtype=np.uint8)
    for index, item in enumerate(scene.objects, start=1):
        owner[item.mask] = index
    side = max(height, width)
    square = np.zeros((side, side), dtype=np.uint8)
    square[:height, :width] = owner
    small = Image.fromarray(square).resize((cells_a_side, cells_a_side), Image.Resampling.NEAREST)
    return np.asarray(small).astype(np.int8) - 1


def _notes(scene: Scene, rng: np.random.Generator) -> SceneNotes:
    side = max(scene.image.shape[:2])
    found = expressions_for(scene, rng, per_object=_PER_OBJECT, multiple=_MULTIPLE, no_target=_NO_TARGET)
    return SceneNotes(
        things=tuple(
            Thing(
                words=describe(item),
                shape=item.shape,
                colour=item.colour,
                fill=item.fill,
                box=_box(item.mask, side),
            )
            for item in scene.objects
        ),
        questions=tuple(Question(text=item.text, targets=item.targets) for item in found),
    )


def _box(mask: NDArray[np.bool_], side: int) -> BoxBins:
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return box_bins(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]), side)
