"""An untrained ALToLLM small enough for tests: 32 px images, 4 image tokens, 8 codes."""

import numpy as np
import torch

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.network import NetworkConfig, build_network
from alto_models.altollm.vocabulary import add_mask_vocabulary, build_word_tokenizer

CODES = 8
NETWORK = NetworkConfig(
    image_size=32,
    vision_width=16,
    vision_layers=1,
    vision_heads=2,
    vision_mlp_width=16,
    text_width=24,
    text_layers=2,
    text_heads=2,
    text_mlp_width=32,
)
WORDS = "Segment the red blue star ring left of by adaptive length There is no such object mask appears at"


def untrained(seed: int = 0) -> AltoLLM:
    torch.manual_seed(seed)
    tokenizer = build_word_tokenizer(WORDS.split())
    add_mask_vocabulary(tokenizer, CODES)
    return AltoLLM(build_network(NETWORK, tokenizer).eval(), tokenizer)


def picture(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
