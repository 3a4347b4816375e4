"""`config.json` of a published InternVL-Chat / ALToLLM checkpoint, and what it is called in transformers.

Only fields that change what the network computes are read. Nothing that matters is defaulted: a field that
is missing is an error. Dropout and stochastic depth are choices of a training run and are not carried over.
"""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from alto_models.published.tensor_names import Heads

if TYPE_CHECKING:
    from transformers import (
        InternVLConfig,
        InternVLVisionConfig,
        LlamaConfig,
        PreTrainedTokenizerBase,
        Qwen2Config,
    )

_QK_NORM_EPS = 1e-6  # what transformers' InternVL uses, whatever the configuration says


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class InternViT(_Section):
    """Section `vision_config`."""

    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    image_size: PositiveInt
    patch_size: PositiveInt
    num_channels: PositiveInt = 3
    qkv_bias: bool
    qk_normalization: bool
    norm_type: Literal["layer_norm", "rms_norm"]
    hidden_act: Literal["gelu"]
    layer_norm_eps: PositiveFloat

    @model_validator(mode="after")
    def _can_be_expressed(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        if self.qk_normalization and self.layer_norm_eps != _QK_NORM_EPS:
            raise ValueError(
                f"qk_normalization needs layer_norm_eps {_QK_NORM_EPS}, the one transformers has"
            )
        return self

    def to_transformers(self) -> "InternVLVisionConfig":
        from transformers import InternVLVisionConfig

        return InternVLVisionConfig(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_channels=self.num_channels,
            attention_bias=self.qkv_bias,
            use_qk_norm=self.qk_normalization,
            norm_type=self.norm_type,
            hidden_act=self.hidden_act,
            layer_norm_eps=self.layer_norm_eps,
            use_mean_pooling=True,  # patches reach the projector without a last norm
        )


class RopeScaling(_Section):
    """How rotary frequencies change beyond `max_position_embeddings`."""

    type: Literal["dynamic", "linear"]
    factor: PositiveFloat


class _LanguageModel(_Section):
    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    max_position_embeddings: PositiveInt
    rope_theta: PositiveFloat
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: PositiveFloat
    hidden_act: Literal["silu"]
    tie_word_embeddings: bool = False

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                "hidden_size must be a multiple of num_attention_heads, and that of num_key_value_heads"
            )
        return self

    @property
    def heads(self) -> Heads:
        return Heads(
            queries=self.num_attention_heads,
            key_values=self.num_key_value_heads,
            width=self.hidden_size // self.num_attention_heads,
        )

    def _shared_fields(self) -> dict[str, object]:
        """Fields that Llama and Qwen2 call alike."""
        scaling = self.rope_scaling
        rope = (
            {"rope_type": "default"}
            if scaling is None
            else {"rope_type": scaling.type, "factor": scaling.factor}
        )
        return self.model_dump(exclude={"model_type", "rope_theta", "rope_scaling", "bias"}) | {
            "rope_parameters": rope | {"rope_theta": self.rope_theta}
        }


class InternLM2(_LanguageModel):
    """Section `llm_config` of an InternLM2 model, which computes what transformers' Llama does."""

    model_type: Literal["internlm2"]
    bias: bool

    def to_transformers(self) -> "LlamaConfig":
        from transformers import LlamaConfig

        return LlamaConfig(**self._shared_fields(), attention_bias=self.bias)


class Qwen2(_LanguageModel):
    """Section `llm_config` of a Qwen2 model."""

    model_type: Literal["qwen2"]
    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 0

    def to_transformers(self) -> "Qwen2Config":
        from transformers import Qwen2Config

        return Qwen2Config(**self._shared_fields())


class InternVLChat(_Section):
    """The whole file. Images of `force_image_size` pixels a side, else of the vision model's own size."""

    model_type: Literal["internvl_chat"]
    vision_config: InternViT
    llm_config: Annotated[InternLM2 | Qwen2, Field(discriminator="model_type")]
    downsample_ratio: float = Field(gt=0, le=1)
    select_layer: int
    ps_version: Literal["v2"]
    force_image_size: PositiveInt | None = None

    def to_transformers(self, tokenizer: "PreTrainedTokenizerBase", image_token_id: int) -> "InternVLConfig":
        """The same network as transformers describes it. Raises ValueError for what it refuses."""
        from transformers import InternVLConfig

        text = self.llm_config.to_transformers()
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(text, name, getattr(tokenizer, name))
        side = self.force_image_size or self.vision_config.image_size
        return InternVLConfig(
            vision_config=self.vision_config.to_transformers(),
            text_config=text,
            image_token_id=image_token_id,
            image_seq_length=int(side // self.vision_config.patch_size * self.downsample_ratio) ** 2,
            downsample_ratio=self.downsample_ratio,
            vision_feature_layer=self.select_layer,
            tie_word_embeddings=self.llm_config.tie_word_embeddings,
            architectures=["InternVLForConditionalGeneration"],
        )
