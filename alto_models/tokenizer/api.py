"""A mask tokenizer in two verbs: `tokenize` a mask of any size, `detokenize` it at that size.

    tokenizer = TrainedTokenizer.from_folder(Path("models/small/tokenizer_stage1_5"))
    tokenized = tokenizer.tokenize(mask, image, quality=0.9)
    again = tokenizer.detokenize(tokenized, image)

Letters: H height, W width of the image and its masks; L codes at full length. Runs on the CPU.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from alto_models.data.files import MAX_SIDE, BoolMask, binary
from alto_models.data.shards import Picture
from alto_models.data.squares import cut_mask, restore_whole, whole_square
from alto_models.masks import encode, parse_counts
from alto_models.metrics import iou
from alto_models.tokenizer.any_tokenizer import load_any_tokenizer
from alto_models.tokenizer.interface import Tokenizer
from alto_models.tokenizer.prefixes import decode_prefixes
from alto_models.tokenizer.whole_image import decode_to_image, embed_whole_image
from data_contracts.errors import InputError

Side = Annotated[int, Field(gt=0, le=MAX_SIDE)]


class TokenizedMask(BaseModel):
    """codes: those kept, in order; length: their number. height, width: of the mask in pixels.

    iou: of the decoded mask with the original at its size, where that was measured.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    codes: tuple[int, ...] = Field(min_length=1)
    length: int = Field(default_factory=lambda fields: len(fields.get("codes", ())))
    height: Side
    width: Side
    iou: float | None = None

    @model_validator(mode="after")
    def _length_counts_codes(self) -> Self:
        if self.length != len(self.codes):
            raise ValueError(f"length is {self.length}, but there are {len(self.codes)} codes")
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedImage:
    """An image of (height, width) pixels for all its masks; embedding (1, C, F, F)."""

    height: int
    width: int
    embedding: Tensor


class TrainedTokenizer:
    """Raises InputError for whatever does not fit: mask, image, codes, or their sizes."""

    def __init__(self, model: Tokenizer) -> None:
        self.model = model.eval()

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """From a checkpoint folder, or one of `alto convert tokenizer`. Raises InputError for a bad one."""
        return cls(load_any_tokenizer(folder))

    def encode_image(self, image: Picture) -> EncodedImage:
        """Encode an (H, W, 3) uint8 RGB image once for several masks."""
        height, width = picture_size(image)
        return EncodedImage(height=height, width=width, embedding=embed_whole_image(self.model, [image]))

    def tokenize(
        self,
        mask: NDArray,
        image: Picture | EncodedImage | None = None,
        *,
        quality: float | None = None,
        max_tokens: int | None = None,
    ) -> TokenizedMask:
        """Codes of a mask (H, W), bool or 0 and one other number, not empty.

        Kept are as many codes as the model predicts, or
        quality (0 < Q <= 1): as the shortest prefix needs whose decoded mask has this IoU; all L where none has;
        max_tokens (>= 1): as predicted, but at most so many.
        The image is looked at only to decode for `quality`; without one, the model's stand-in is;
        a published model has none, and raises InputError.
        """
        check_wanted(quality, max_tokens)
        mask = binary(mask)
        if not mask.any():
            raise InputError("the mask is empty: it has no codes")
        height, width = mask.shape
        require_size(image, height, width)
        with torch.no_grad():
            encoding = self.model.encode(torch.from_numpy(self._grid(mask)).float()[None, None])
        length, reached = int(encoding.length[0]), None
        if max_tokens is not None:
            length = min(length, max_tokens)
        if quality is not None:
            length, reached = self._shortest_prefix(encoding.codes, mask, self._embedding(image), quality)
        codes = tuple(encoding.codes[0, :length].tolist())
        return TokenizedMask(codes=codes, height=height, width=width, iou=reached)

    def detokenize(self, tokenized: TokenizedMask, image: Picture | EncodedImage | None = None) -> BoolMask:
        """(H, W) bool mask at its original size, without an image with the model's stand-in, as in `tokenize`."""
        config = self.model.config
        if tokenized.length > config.max_length:
            raise InputError(
                f"{tokenized.length} codes, but the model has at most {config.max_length} a mask"
            )
        for code in tokenized.codes:
            if not 0 <= code < config.codebook_size:
                raise InputError(
                    f"code {code} is not in the model's codebook, 0 to {config.codebook_size - 1}"
                )
        size = (tokenized.height, tokenized.width)
        require_size(image, *size)
        codes, length = torch.tensor([tokenized.codes]), torch.tensor([tokenized.length])
        return decode_to_image(self.model, codes, length, self._embedding(image), [size])[0]

    def _grid(self, mask: BoolMask) -> BoolMask:
        """(M, M) bool that the model sees; a mask too thin to be sampled becomes the cells that it touches."""
        height, width = mask.shape
        size, square = self.model.config.mask_size, whole_square(height, width)
        grid = cut_mask(parse_counts(encode(mask).counts), height, width, square, size)
        if not grid.any():
            rows, columns = np.nonzero(mask)
            grid[rows * size // square.side, columns * size // square.side] = True
        return grid

    def _shortest_prefix(
        self, codes: Tensor, mask: BoolMask, embedding: Tensor, quality: float
    ) -> tuple[int, float]:
        """Length and IoU at the original size of the first prefix of codes (1, L) that is good enough."""
        prefixes = decode_prefixes(self.model, codes, embedding)[0].sigmoid().numpy()
        for length, probabilities in enumerate(prefixes, start=1):
            reached = iou(restore_whole(probabilities, *mask.shape).astype(bool), mask)
            if reached >= quality:
                return length, reached
        return len(prefixes), reached

    def _embedding(self, image: Picture | EncodedImage | None) -> Tensor:
        if image is None:
            return self.model.embedding_without_image(1).detach()
        return image.embedding if isinstance(image, EncodedImage) else self.encode_image(image).embedding


def check_wanted(quality: float | None, max_tokens: int | None) -> None:
    """Raises InputError unless at most one is given, quality in 0 < Q <= 1 or max_tokens >= 1."""
    if quality is not None and max_tokens is not None:
        raise InputError("give quality or max_tokens, not both")
    if quality is not None and not 0 < quality <= 1:
        raise InputError(f"quality is an IoU above 0 and up to 1, got {quality}")
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max_tokens is at least 1, got {max_tokens}")


def picture_size(image: Picture) -> tuple[int, int]:
    """(H, W) of an image. Raises InputError unless it is (H, W, 3) uint8 and not too large."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"an image is (H, W, 3) uint8, got {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    if max(height, width) > MAX_SIDE:
        raise InputError(f"an image has at most {MAX_SIDE} pixels a side, got {width} x {height}")
    return height, width


def require_size(image: Picture | EncodedImage | None, height: int, width: int) -> None:
    """Raises InputError where an image is given and is not as large as its mask."""
    if image is None:
        return
    found = (image.height, image.width) if isinstance(image, EncodedImage) else picture_size(image)
    if found != (height, width):
        raise InputError(f"the mask is {width} x {height} pixels, its image {found[1]} x {found[0]}")
