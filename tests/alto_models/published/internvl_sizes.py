"""Configurations of published InternVL models, as far as they decide the network."""

from typing import Any

from alto_models.published.internvl_chat import InternVLChat


def _internvl2_5(language_model: dict[str, Any]) -> InternVLChat:
    """InternViT-300M at 448 px with the language model given."""
    return InternVLChat.model_validate(
        {
            "model_type": "internvl_chat",
            "downsample_ratio": 0.5,
            "ps_version": "v2",
            "select_layer": -1,
            "force_image_size": 448,
            "vision_config": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "hidden_act": "gelu",
                "image_size": 448,
                "patch_size": 14,
                "qkv_bias": True,
                "qk_normalization": False,
                "norm_type": "layer_norm",
                "layer_norm_eps": 1e-6,
            },
            "llm_config": {"hidden_act": "silu", "max_position_embeddings": 32768, "rope_theta": 1000000}
            | language_model,
        }
    )


INTERNVL2_5_1B = _internvl2_5(
    {
        "model_type": "qwen2",
        "vocab_size": 151674,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    }
)

INTERNVL2_5_8B = _internvl2_5(
    {
        "model_type": "internlm2",
        "vocab_size": 92553,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rope_scaling": {"factor": 2.0, "type": "dynamic"},
        "rms_norm_eps": 1e-5,
        "bias": False,
    }
)
