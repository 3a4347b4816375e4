"""Builds a small InternVL and runs it: image embeddings, hidden states of packed sequences."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from alto_models.altollm.packing import PackedBatch
from alto_models.altollm.vocabulary import (
    BOX_END,
    BOX_START,
    IMAGE_CONTEXT,
    MASK_END,
    MASK_START,
    PADDING,
    TURN_END,
    MaskVocabulary,
    add_mask_vocabulary,
    token_id,
)
from alto_models.training.precision import to_device
from data_contracts.errors import InputError

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration

# Embeddings of one image each, (image tokens, text width); as a tensor where all have equally many tokens.
ImageTokens = Tensor | Sequence[Tensor]


class NetworkConfig(BaseModel):
    """Sizes of a small InternVL. One image gives (image_size / patch_size / 2)² tokens.

    patch_size: pixels a side.
    vision_width, vision_layers, vision_heads, vision_mlp_width: of the vision tower.
    text_width, text_layers, text_heads, text_mlp_width: of the language model.
    max_positions: tokens of the longest sequence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(default=96, description="pixels a side")
    patch_size: int = 8
    vision_width: int = 128
    vision_layers: int = 5
    vision_heads: int = 4
    vision_mlp_width: int = 384
    text_width: int = 160
    text_layers: int = 4
    text_heads: int = 5
    text_mlp_width: int = 384
    max_positions: int = 2048

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> Self:
        if self.vision_width % self.vision_heads or self.text_width % (2 * self.text_heads):
            raise ValueError("vision_width must be a multiple of vision_heads, text_width of 2 * text_heads")
        return self


def build_network(
    config: NetworkConfig, tokenizer: PreTrainedTokenizerBase
) -> "InternVLForConditionalGeneration":
    """A freshly initialised model, drawn from torch's global generator.

    Small networks need what large ones can do without: position embeddings that start as sines and cosines
    at the scale of the patches, and residual branches that count from the first step.
    """
    from transformers import (
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLVisionConfig,
        Qwen2Config,
    )

    vision = InternVLVisionConfig(
        hidden_size=config.vision_width,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.vision_heads,
        intermediate_size=config.vision_mlp_width,
        attention_bias=True,
        image_size=config.image_size,
        patch_size=config.patch_size,
        layer_scale_init_value=1.0,
        use_mean_pooling=False,
        initializer_range=1 / math.sqrt(config.vision_width),
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.text_width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.text_heads,
        num_key_value_heads=config.text_heads,
        intermediate_size=config.text_mlp_width,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=True,
        pad_token_id=token_id(tokenizer, PADDING),
        bos_token_id=None,
        eos_token_id=token_id(tokenizer, TURN_END),
        initializer_range=1 / math.sqrt(config.text_width),
    )
    model = InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=token_id(tokenizer, IMAGE_CONTEXT),
            image_seq_length=(config.image_size // config.patch_size // 2) ** 2,
        )
    )
    embeddings = model.model.vision_tower.embeddings
    with torch.no_grad():
        grid = config.image_size // config.patch_size
        embeddings.position_embeddings[0, 1:] = sine_cosine_positions(grid, config.vision_width)
    return model


def grow_vocabulary(
    model: "InternVLForConditionalGeneration", tokenizer: PreTrainedTokenizerBase, codebook_size: int
) -> None:
    """Add the mask vocabulary to tokenizer and model.

    New embeddings are drawn around the mean of the old ones. Start and end of a mask begin as those of a box
    where the base model knows boxes: like a box, a mask is a place written as tokens.
    Raises InputError where the base model has mask tokens for a larger codebook already.
    """
    known = tokenizer.get_vocab()
    add_mask_vocabulary(tokenizer, codebook_size)
    found = MaskVocabulary.of(tokenizer).size
    if found != codebook_size:
        raise InputError(
            f"the base model has {found} mask tokens, the mask tokenizer {codebook_size} codes; "
            "take a base model without mask tokens, or one of this codebook"
        )
    model.resize_token_embeddings(len(tokenizer))
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        for token, model_token in ((MASK_START, BOX_START), (MASK_END, BOX_END)):
            if token not in known and model_token in known:
                embeddings[token_id(tokenizer, token)] = embeddings[known[model_token]]


def keep_rotary_frequencies(model: "InternVLForConditionalGeneration") -> None:
    """Rotary frequencies as they are for every sequence within the positions the model was made for.

    With dynamic scaling (InternVL2.5-8B) transformers looks at each call whether a sequence is longer, which
    makes the host wait for the device; ours never are. What is saved still says dynamic.
    """
    rotary = getattr(model.model.language_model, "rotary_emb", None)
    if rotary is not None and rotary.rope_type == "dynamic":
        rotary.rope_type = "default"


def sine_cosine_positions(grid: int, width: int) -> Tensor:
    """(grid², width) fixed 2-d position code: half of the channels for the row, half for the column."""
    frequency = math.pi / 2 * torch.logspace(0, 1, width // 4, base=grid / 2)
    angle = torch.linspace(-1, 1, grid)[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows, columns = line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=-1).reshape(grid * grid, width)


def image_embeddings(model: "InternVLForConditionalGeneration", pixels: Tensor) -> Tensor:
    """(B, 3, S, S) normalised pixels -> (B, image tokens, text width)."""
    return embed_patches(model, pixels)[1]


def embed_patches(model: "InternVLForConditionalGeneration", pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) normalised pixels -> patches (B, P, vision width), image tokens (B, P / 4, text width)."""
    features = model.get_image_features(to_device(pixels, model.device), return_dict=True)
    return features.last_hidden_state[:, 1:], features.pooler_output


class ImageTokensError(ValueError):
    """A sequence (its row in the batch) has places for another number of image tokens than its image."""

    def __init__(self, row: int, held: int, given: int) -> None:
        super().__init__(f"the sequence has places for {held} image tokens, its image gives {given}")
        self.row = row


def hidden_states(
    model: "InternVLForConditionalGeneration", image: ImageTokens, batch: PackedBatch
) -> Tensor:
    """Last hidden states (B, T, text width) of packed sequences with one image each.

    Raises ImageTokensError where a row holds another number of image tokens than its image has.
    """
    batch = batch.to(model.device)
    return model.model.language_model(
        inputs_embeds=input_embeddings(model, image, batch),
        attention_mask=batch.attention_mask(),
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state


def input_embeddings(
    model: "InternVLForConditionalGeneration", image: ImageTokens, batch: PackedBatch
) -> Tensor:
    """Token embeddings (B, T, text width) with each row's image in its place; raises as `hidden_states`."""
    for row, (held, one) in enumerate(zip(batch.image_tokens, image, strict=True)):
        if held != len(one):
            raise ImageTokensError(row, held, len(one))
    inputs = model.get_input_embeddings()(batch.ids)
    flat = image.flatten(0, 1) if isinstance(image, Tensor) else torch.cat(list(image))
    return inputs.flatten(0, 1).index_copy(0, batch.image_places, flat.to(inputs.dtype)).view_as(inputs)
