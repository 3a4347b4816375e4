"""Dense labels for the vision tower: what covers each cell of the image, and where that thing's box is.

A linear head on the patches, thrown away afterwards, names shape, colour and fill of each cell and gives the
box of the thing it belongs to. This teaches the tower to see within minutes; through a language model's
answers alone the same takes hours.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from alto_models.altollm.boxes import BINS
from jobs.base_pretraining.scenes import CELL, SceneNotes
from jobs.sample_scenes.scene import SHAPES
from jobs.sample_scenes.textures import COLOURS, FILLS

ATTRIBUTES = (("shape", SHAPES), ("colour", tuple(COLOURS)), ("fill", FILLS))
_CLASSES = [len(names) + 1 for _, names in ATTRIBUTES]  # 0: background
_BOX = 4
_COVERED_CELLS = 3
_SHARPNESS = 12.0  # of a softmax over cosines


def cell_labels(
    cells_BGG: NDArray[np.int8],  # noqa: N803
    notes: list[SceneNotes],
) -> tuple[Tensor, Tensor]:
    """Classes (B, G, G, 3) int64, one an attribute, 0 for background; boxes (B, G, G, 4) in 0..1, NaN there."""
    classes, boxes = [], []
    for cells, note in zip(cells_BGG, notes, strict=True):
        names = [[0, 0, 0]] + [
            [choices.index(getattr(thing, name)) + 1 for name, choices in ATTRIBUTES] for thing in note.things
        ]
        places = [[float("nan")] * _BOX] + [
            [(edge + 0.5) / BINS for edge in thing.box] for thing in note.things
        ]
        classes.append(np.array(names)[cells + 1])
        boxes.append(np.array(places, dtype=np.float32)[cells + 1])
    return torch.from_numpy(np.stack(classes)), torch.from_numpy(np.stack(boxes))


def image_token_words(
    cells_BGG: NDArray[np.int8],  # noqa: N803
    notes: list[SceneNotes],
    tokenizer: PreTrainedTokenizerBase,
    tokens_a_side: int,
) -> Tensor:
    """(B, image tokens, 3) ids of the words for shape, colour and fill of the thing that covers most of each
    image token; -1 where less than `_COVERED_CELLS` of its cells belong to one thing."""
    words = {word: tokenizer.convert_tokens_to_ids(word) for _, choices in ATTRIBUTES for word in choices}
    span = cells_BGG.shape[1] // tokens_a_side
    labels = np.full((len(cells_BGG), tokens_a_side**2, len(ATTRIBUTES)), -1)
    for row, (cells, note) in enumerate(zip(cells_BGG, notes, strict=True)):
        tokens = cells.reshape(tokens_a_side, span, tokens_a_side, span).transpose(0, 2, 1, 3)
        owners = tokens.reshape(tokens_a_side**2, 1, span**2)
        counts = (owners == np.arange(len(note.things))[None, :, None]).sum(-1)
        names = [[words[getattr(thing, name)] for name, _ in ATTRIBUTES] for thing in note.things]
        covered = counts.max(1) >= _COVERED_CELLS
        labels[row, covered] = np.array(names)[counts.argmax(1)[covered]]
    return torch.from_numpy(labels)


def naming_loss(logits_BTV: Tensor, words_BT3: Tensor) -> Tensor:  # noqa: N803
    """Mean cross-entropy of the words of the image tokens that have some.

    logits_BTV: image tokens as they enter the language model, times its word embeddings. It draws what is
    seen to the words for it, so that the language model need not find that out from answers alone.
    """
    named = words_BT3[..., 0] >= 0
    log_probs = logits_BTV[named].log_softmax(-1)
    return -log_probs.gather(1, words_BT3[named]).mean()


class PointingHead(nn.Module):
    """Which image tokens an answer is going to be about, told from the last hidden state before it.

    Like the dense head it is thrown away: it lets the language model learn what an expression means before it
    can write coordinates.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)

    def forward(self, hidden_QW: Tensor, image_QTW: Tensor, tokens_QT: Tensor) -> Tensor:  # noqa: N803
        """Mean cross-entropy of the image tokens (Q, T) that the targets cover."""
        keys = functional.normalize(self.key(image_QTW), dim=-1)
        scores = (keys @ functional.normalize(self.query(hidden_QW), dim=-1)[..., None])[..., 0]
        return functional.cross_entropy(scores * _SHARPNESS, tokens_QT)


class DenseHead(nn.Module):
    """Patch features -> loss of the cell labels."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.cells = patch_size // CELL
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, self.cells**2 * (sum(_CLASSES) + _BOX))

    def forward(self, patches_BPW: Tensor, classes: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803
        """Mean loss, and the accuracy of each attribute over the cells that some thing covers, (3,)."""
        batch, patches, _ = patches_BPW.shape
        grid, cells = round(patches**0.5), self.cells
        scores = self.linear(self.norm(patches_BPW)).view(batch, grid, grid, cells, cells, -1)
        scores = scores.transpose(2, 3).reshape(batch, grid * cells, grid * cells, -1)
        parts = scores.split([*_CLASSES, _BOX], dim=-1)
        covered = classes[..., 0] > 0
        loss = torch.zeros(())
        correct = []
        for index, part in enumerate(parts[:-1]):
            label = classes[..., index]
            each = functional.cross_entropy(part.flatten(0, 2), label.flatten(), reduction="none")
            weight = torch.where(covered.flatten(), 4.0, 1.0)
            loss = loss + (each * weight).sum() / weight.sum()
            correct.append((part.argmax(-1) == label)[covered].float().mean())
        loss = loss + 8 * (parts[-1][covered] - boxes[covered]).abs().mean()
        return loss, torch.stack(correct)
