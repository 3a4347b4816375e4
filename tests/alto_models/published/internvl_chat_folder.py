"""Small checkpoint folders in the published InternVL-Chat layout, made from a network of transformers.

The way back (transformers' names to published ones) is written out here on its own, so that a conversion
which is wrong cannot agree with it by construction.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    Qwen2Config,
)

VOCABULARY = [
    *("<unk>", "<s>", "</s>", "a", "cake", "<IMG_CONTEXT>", "<|im_end|>", "<ALTo_Start>", "<TOK_0>"),
    "<|im_start|>",
]
SPECIAL = [token for token in VOCABULARY if token.startswith("<")]
IMAGE_TOKEN_ID = VOCABULARY.index("<IMG_CONTEXT>")
HEADS, KEY_VALUE_HEADS = 4, 2

_NAMES = {
    "model.multi_modal_projector.layer_norm": "mlp1.0",
    "model.multi_modal_projector.linear_1": "mlp1.1",
    "model.multi_modal_projector.linear_2": "mlp1.3",
    "model.vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
    "model.vision_tower.embeddings.position_embeddings": "vision_model.embeddings.position_embedding",
    "model.vision_tower.embeddings.patch_embeddings.projection": "vision_model.embeddings.patch_embedding",
    "model.vision_tower.encoder.layer.": "vision_model.encoder.layers.",
    ".layernorm_before": ".norm1",
    ".layernorm_after": ".norm2",
    ".lambda_": ".ls",
    ".attention.projection_layer": ".attn.proj",
    ".attention.": ".attn.",
    "lm_head": "language_model.lm_head",
    "model.language_model.": "language_model.model.",
}
_INTERNLM2_NAMES = {
    "language_model.lm_head": "language_model.output",
    "embed_tokens": "tok_embeddings",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}


def network(
    language_model: str,
    *,
    qk_norm: bool = False,
    select_layer: int = -1,
    tied: bool = False,
    **text_sizes: int,
) -> InternVLForConditionalGeneration:
    """A random InternVL that takes 28 px images (4 image tokens), by default of 2 + 2 layers."""
    torch.manual_seed(0)
    text: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 24,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        "tie_word_embeddings": tied,
    } | text_sizes
    model = InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=InternVLVisionConfig(
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=28,
                patch_size=7,
                attention_bias=True,
                use_qk_norm=qk_norm,
                norm_type="rms_norm" if qk_norm else "layer_norm",
            ),
            text_config=LlamaConfig(**text, attention_bias=True)
            if language_model == "internlm2"
            else Qwen2Config(**text),
            image_token_id=IMAGE_TOKEN_ID,
            image_seq_length=4,
            vision_feature_layer=select_layer,
            tie_word_embeddings=tied,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # no bias is zero, no norm is one
    return model.eval()


def published_config(model: InternVLForConditionalGeneration) -> dict[str, Any]:
    """Content of the published `config.json` of `model`."""
    vision, text = model.config.vision_config, model.config.text_config
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")
    internlm2 = text.model_type == "llama"
    return {
        "model_type": "internvl_chat",
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": model.config.vision_feature_layer,
        "force_image_size": 28,
        "vision_config": {name: getattr(vision, name) for name in same}
        | {
            "image_size": 28,
            "patch_size": 7,
            "qkv_bias": True,
            "qk_normalization": vision.use_qk_norm,
            "norm_type": vision.norm_type,
            "layer_norm_eps": vision.layer_norm_eps,
            "drop_path_rate": 0.1,
        },
        "llm_config": {name: getattr(text, name) for name in same}
        | {
            "model_type": "internlm2" if internlm2 else "qwen2",
            "vocab_size": text.vocab_size,
            "num_key_value_heads": KEY_VALUE_HEADS,
            "max_position_embeddings": text.max_position_embeddings,
            "rope_theta": 5000.0,
            "rms_norm_eps": text.rms_norm_eps,
            "tie_word_embeddings": text.tie_word_embeddings,
        }
        | ({"bias": True} if internlm2 else {}),
    }


def published_tensors(model: InternVLForConditionalGeneration) -> dict[str, Tensor]:
    """The tensors of `model` under published names, attention projections fused as published."""
    internlm2 = model.config.text_config.model_type == "llama"
    renamed = {}
    for name, tensor in model.state_dict().items():
        for old, new in (_NAMES | (_INTERNLM2_NAMES if internlm2 else {})).items():
            name = name.replace(old, new)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attn.q_proj." in name]:
        parts = [renamed.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        renamed[name.replace("q_proj", "qkv")] = torch.cat(parts)
    for name in [name for name in renamed if internlm2 and ".self_attn.q_proj." in name]:
        q, k, v = (renamed.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv")
        rows = []
        width = model.config.text_config.hidden_size // HEADS
        group = HEADS // KEY_VALUE_HEADS * width
        for head in range(KEY_VALUE_HEADS):
            own = slice(head * width, (head + 1) * width)
            rows += [q[head * group : (head + 1) * group], k[own], v[own]]
        renamed[name.replace("self_attn.q_proj", "attention.wqkv")] = torch.cat(rows)
    if model.config.tie_word_embeddings:
        del renamed["language_model.output.weight" if internlm2 else "language_model.lm_head.weight"]
    return renamed


def write_folder(folder: Path, model: InternVLForConditionalGeneration, shards: int = 2) -> Path:
    """`model` as a published checkpoint in `folder`, with a tokenizer of whole words."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(published_config(model)))
    write_shards(folder, published_tensors(model), shards)
    write_tokenizer(folder)
    return folder


def write_shards(folder: Path, tensors: dict[str, Tensor], shards: int) -> None:
    names = sorted(tensors)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        weight_map |= dict.fromkeys(names[number::shards], file)
        save_file({name: tensors[name].contiguous() for name in names[number::shards]}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel(dict(zip(VOCABULARY, range(99), strict=False)), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
