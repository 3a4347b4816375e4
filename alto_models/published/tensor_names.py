"""Tensors of a published InternVL-Chat checkpoint -> tensors of transformers' InternVL, by name.

Destination names are those `save_pretrained` writes. Fused attention projections are cut:

- InternViT `attn.qkv`: rows of all queries, then all keys, then all values.
- InternLM2 `attention.wqkv`: for each key/value head the rows of its query heads, of its key, of its value.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

_IGNORED = (
    r"mask_decoder\..*",  # the mask tokenizer ALToLLM carries; `alto convert tokenizer` has its own file
    r".*\.rotary_emb\.inv_freq",  # computed from the configuration
)

_PROJECTOR_AND_VISION = (
    (r"mlp1\.0\.", "multi_modal_projector.layer_norm."),
    (r"mlp1\.1\.", "multi_modal_projector.linear_1."),
    (r"mlp1\.3\.", "multi_modal_projector.linear_2."),
    (r"vision_model\.embeddings\.class_embedding", "vision_tower.embeddings.cls_token"),
    (r"vision_model\.embeddings\.position_embedding", "vision_tower.embeddings.position_embeddings"),
    (r"vision_model\.embeddings\.patch_embedding\.", "vision_tower.embeddings.patch_embeddings.projection."),
    (r"vision_model\.encoder\.layers\.(\d+)\.norm1\.", r"vision_tower.encoder.layer.\1.layernorm_before."),
    (r"vision_model\.encoder\.layers\.(\d+)\.norm2\.", r"vision_tower.encoder.layer.\1.layernorm_after."),
    (r"vision_model\.encoder\.layers\.(\d+)\.ls([12])", r"vision_tower.encoder.layer.\1.lambda_\2"),
    (
        r"vision_model\.encoder\.layers\.(\d+)\.attn\.proj\.",
        r"vision_tower.encoder.layer.\1.attention.projection_layer.",
    ),
    (
        r"vision_model\.encoder\.layers\.(\d+)\.attn\.([qk])_norm\.",
        r"vision_tower.encoder.layer.\1.attention.\2_norm.",
    ),
    (
        r"vision_model\.encoder\.layers\.(\d+)\.attn\.qkv\.",
        r"vision_tower.encoder.layer.\1.attention.{}_proj.",
    ),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.fc([12])\.", r"vision_tower.encoder.layer.\1.mlp.fc\2."),
)

_INTERNLM2 = (
    (r"language_model\.output\.", "language_model.lm_head."),
    (r"language_model\.model\.tok_embeddings\.", "language_model.model.embed_tokens."),
    (r"language_model\.model\.norm\.", "language_model.model.norm."),
    (r"(language_model\.model\.layers\.\d+)\.attention_norm\.", r"\1.input_layernorm."),
    (r"(language_model\.model\.layers\.\d+)\.ffn_norm\.", r"\1.post_attention_layernorm."),
    (r"(language_model\.model\.layers\.\d+)\.attention\.wqkv\.", r"\1.self_attn.{}_proj."),
    (r"(language_model\.model\.layers\.\d+)\.attention\.wo\.", r"\1.self_attn.o_proj."),
    (r"(language_model\.model\.layers\.\d+)\.feed_forward\.w1\.", r"\1.mlp.gate_proj."),
    (r"(language_model\.model\.layers\.\d+)\.feed_forward\.w3\.", r"\1.mlp.up_proj."),
    (r"(language_model\.model\.layers\.\d+)\.feed_forward\.w2\.", r"\1.mlp.down_proj."),
)

_QWEN2 = ((r"language_model\.(model|lm_head)\.", r"language_model.\1."),)

_LANGUAGE_MODELS = {"internlm2": _INTERNLM2, "qwen2": _QWEN2}

Selection = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Attention heads of the language model: `queries` share `key_values` in equal groups."""

    queries: int
    key_values: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """One destination tensor: its name, and how it is taken from the source tensor."""

    name: str
    select: Selection


def is_ignored(name: str) -> bool:
    """Whether a tensor of the published checkpoint has no place in the language model, and is left out."""
    return any(re.fullmatch(pattern, name) for pattern in _IGNORED)


def destinations(name: str, language_model: str, heads: Heads) -> list[Part]:
    """What becomes of the source tensor `name`: one part, three for fused projections, none where unknown.

    language_model: "internlm2" or "qwen2".
    """
    for pattern, replacement in (*_PROJECTOR_AND_VISION, *_LANGUAGE_MODELS[language_model]):
        new_name, found = re.subn(f"^{pattern}", replacement, name)
        if found:
            return _parts(new_name, grouped=name.startswith("language_model."), heads=heads)
    return []


def _parts(name: str, grouped: bool, heads: Heads) -> list[Part]:
    if "{}" not in name:
        return [Part(name=name, select=lambda tensor: tensor)]
    select = _grouped if grouped else _stacked
    return [Part(name=name.format(letter), select=select(letter, heads)) for letter in "qkv"]


def _stacked(letter: str, _: Heads) -> Selection:
    return lambda tensor: tensor.unflatten(0, (3, -1))["qkv".index(letter)]


def _grouped(letter: str, heads: Heads) -> Selection:
    queries_a_group = heads.queries // heads.key_values
    rows = {"q": slice(0, queries_a_group), "k": slice(-2, -1), "v": slice(-1, None)}[letter]

    def select(tensor: Tensor) -> Tensor:
        groups = tensor.unflatten(0, (heads.key_values, queries_a_group + 2, heads.width))
        return groups[:, rows].flatten(0, 2)

    return select
