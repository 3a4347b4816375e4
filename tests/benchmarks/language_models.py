"""Untrained ALToLLMs at which ours is compared with the published procedures, and questions for them."""

from dataclasses import dataclass

import numpy as np
import torch

from alto_models.altollm.answering import AltoLLM, Picture
from alto_models.altollm.conversation import segment_prompt
from alto_models.altollm.generation import Questions, Sampling, generate
from alto_models.altollm.network import NetworkConfig, build_network
from alto_models.altollm.vocabulary import add_mask_vocabulary, build_word_tokenizer
from alto_models.tokenizer.config import TokenizerConfig

EXPRESSION = "the large red star on the left of the small ring"


@dataclass(frozen=True, kw_only=True)
class LanguageModelSize:
    """masks: what the codes belong to. group_size, prompts: of a GRPO step."""

    name: str
    network: NetworkConfig
    masks: TokenizerConfig
    group_size: int
    prompts: int


# Tokens as in the published setting (256 an image, masks of 32 codes of 1,024), networks far smaller.
REDUCED = LanguageModelSize(
    name="published numbers of tokens",
    network=NetworkConfig(
        image_size=256,
        vision_width=64,
        vision_layers=4,
        vision_mlp_width=256,
        text_width=320,
        text_layers=6,
        text_mlp_width=1024,
    ),
    masks=TokenizerConfig(max_length=32, codebook_size=1024),
    group_size=12,
    prompts=2,
)

# The networks of the profile `small`: 36 tokens an image, masks of 16 codes of 256.
SMALL = LanguageModelSize(
    name="small", network=NetworkConfig(), masks=TokenizerConfig(), group_size=8, prompts=8
)


def untrained(size: LanguageModelSize) -> AltoLLM:
    """Random weights, always the same."""
    torch.manual_seed(0)
    tokenizer = build_word_tokenizer(f"Segment by adaptive length {EXPRESSION}".split())
    add_mask_vocabulary(tokenizer, size.masks.codebook_size)
    return AltoLLM(build_network(size.network, tokenizer).eval(), tokenizer)


def pictures(count: int) -> list[Picture]:
    """Images of different sizes, always the same."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (200 + 8 * place, 240, 3), dtype=np.uint8) for place in range(count)]


def mask_prompts(llm: AltoLLM, count: int) -> list[list[int]]:
    """Ids of questions of different lengths, up to the start of the mask that is the answer."""
    words = EXPRESSION.split()
    return [
        [
            *llm.template.question_ids(
                llm.tokenizer, segment_prompt(" ".join(words[: 3 + place % 8]), adaptive=True)
            ),
            llm.vocabulary.start,
        ]
        for place in range(count)
    ]


def answer_masks(llm: AltoLLM, questions: Questions, sampling: Sampling) -> list[list[int]]:
    """Ids of one mask an answer, its end included, and the one token of text that follows."""
    return generate(
        llm.model, llm.grammar, questions, turn_end=llm.turn_end, sampling=sampling, max_text_tokens=1
    )
