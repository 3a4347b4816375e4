"""From answers to masks: codes of several questions on one image, decoded together."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alto_models.altollm.answering import Answer
from alto_models.tokenizer.interface import Tokenizer
from alto_models.tokenizer.whole_image import decode_to_image

BinaryMask = NDArray[np.bool_]


def decode_answers(
    tokenizer: Tokenizer,
    image_embedding: Tensor,
    size: tuple[int, int],
    answers: Sequence[Answer],
) -> list[BinaryMask]:
    """One (H, W) mask an answer, nothing in it where the answer has no codes; decoded in one batch.

    image_embedding: (1, C, h, w) of the one image they are about, seen by the de-tokenizer at the image's own
    resolution, never the language model's. size: (H, W) of the image in pixels.
    """
    masks = [np.zeros(size, dtype=bool) for _ in answers]
    with_codes = [index for index, answer in enumerate(answers) if answer.codes]
    if not with_codes:
        return masks
    lengths = torch.tensor([answers[index].length for index in with_codes])
    codes = torch.zeros(len(with_codes), int(lengths.max()), dtype=torch.int64)
    for row, index in enumerate(with_codes):
        codes[row, : answers[index].length] = torch.tensor(answers[index].codes)
    decoded = decode_to_image(tokenizer, codes, lengths, image_embedding, [size] * len(with_codes))
    for index, mask in zip(with_codes, decoded, strict=True):
        masks[index] = mask
    return masks
