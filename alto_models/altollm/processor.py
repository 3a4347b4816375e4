"""Images as the vision tower wants them: the whole image, padded to a square, resized, normalised."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def square_thumbnail(image_HW3: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:  # noqa: N803
    """The whole image in the upper left of a (side, side, 3) uint8 square, the rest in the mean colour."""
    if image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or image_HW3.dtype != np.uint8:
        raise ValueError(f"an image must be (H, W, 3) uint8, got {image_HW3.shape} {image_HW3.dtype}")
    height, width = image_HW3.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = Image.fromarray(image_HW3).resize(
        size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    )
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = np.round(np.array(IMAGE_MEAN) * 255).astype(np.uint8)
    square[: size[1], : size[0]] = np.asarray(resized)
    return square


def normalise(images_BSS3: NDArray[np.uint8]) -> Tensor:  # noqa: N803
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32, mean 0 and deviation 1 a channel over natural images."""
    pixels = torch.from_numpy(images_BSS3).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    return (pixels - mean) / std
