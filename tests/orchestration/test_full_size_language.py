"""The profiles' full-size language models, without their memory: published sizes, a step of either training, memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.network import image_embeddings
from alto_models.altollm.packing import Branch, pack
from alto_models.altollm.reference import language_parameters
from alto_models.altollm.scoring import Group, answer_log_probs
from alto_models.altollm.supervised import SupervisedLoss
from alto_models.altollm.vocabulary import add_mask_vocabulary, token_id
from alto_models.published.internvl_chat import InternVLChat
from orchestration.profiles import render_profile
from tests.alto_models.altollm.one_device import OneDevice
from tests.alto_models.published.internvl_sizes import INTERNVL2_5_1B, INTERNVL2_5_8B

CODES, LONGEST = 1024, 32
SPECIAL = ["<img>", "</img>", "<IMG_CONTEXT>", "<ref>", "</ref>", "<|im_start|>", "<|im_end|>"]
PROMPT = list(range(100, 130))
PADDING = 0
GPU_BYTES = 80e9


@dataclass(frozen=True, kw_only=True)
class Case:
    """billions: of parameters, published."""

    profile: str
    published: InternVLChat
    billions: float


CASES = [
    Case(profile="single_gpu", published=INTERNVL2_5_1B, billions=0.938),
    Case(profile="paper", published=INTERNVL2_5_8B, billions=8.08),
]


@dataclass(frozen=True, kw_only=True)
class FullSize:
    """On the meta device, in bfloat16, with the mask vocabulary. parameters_before: without it."""

    case: Case
    llm: AltoLLM
    parameters_before: int

    def settings(self, stage: str) -> dict[str, Any]:
        root = Path(__file__).resolve().parents[2]
        return yaml.safe_load(render_profile(root, self.case.profile))[stage]

    def processes(self, stage: str) -> int:
        return self.settings("resources")["processes"].get(stage, 1)

    def estimated_bytes(self, stage: str, trained: int) -> float:
        """Weights, gradients and AdamW's state of so many trained parameters on one GPU."""
        zero = self.settings(stage)["training"]["deepspeed"] or "zero0"
        return estimated_bytes(trained, self.processes(stage), int(zero.removeprefix("zero")))

    def a_process(self, stage: str, total: str) -> int:
        count, rest = divmod(self.settings(stage)[total], self.processes(stage))
        assert not rest
        return count


def tokenizer_of(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer with as many tokens as the published one."""
    words = [*SPECIAL, *map(str, range(size - len(SPECIAL)))]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="0"))
    inner.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="0")


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.profile)
def full_size(request: pytest.FixtureRequest) -> FullSize:
    published = request.param.published
    tokenizer = tokenizer_of(published.llm_config.vocab_size)
    config = published.to_transformers(tokenizer, token_id(tokenizer, "<IMG_CONTEXT>"))
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
        before = model.num_parameters()
        add_mask_vocabulary(tokenizer, CODES)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)  # their mean needs values
    model.to(torch.bfloat16).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return FullSize(case=request.param, llm=AltoLLM(model, tokenizer), parameters_before=before)


def pixels(images: int) -> Tensor:
    return torch.zeros(1).expand(images, 3, 448, 448)


def kept_bytes(model: torch.nn.Module, forward: Callable[[], Tensor]) -> tuple[int, Tensor]:
    """What the backward pass needs beside the parameters, and the result."""
    kept: dict[int, Tensor] = {}
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), result


def estimated_bytes(parameters: int, processes: int, stage: int) -> float:
    """Weights, gradients and AdamW's state on one GPU, bfloat16 with float32 copies: Rajbhandari et al., "ZeRO" (2020).

    Shared out are: stage 0 nothing, stage 1 the float32 state (weights, momentum, variance), stage 2 gradients, too,
    stage 3 all.
    """
    weights, gradients, state = 2 * parameters, 2 * parameters, 12 * parameters
    if stage == 3:
        weights /= processes
    if stage >= 2:
        gradients /= processes
    if stage >= 1:
        state /= processes
    return weights + gradients + state


def test_published_sizes_with_the_mask_vocabulary(full_size: FullSize) -> None:
    llm, published = full_size.llm, full_size.case.published
    assert full_size.parameters_before / 1e9 == pytest.approx(full_size.case.billions, abs=0.005)
    width = published.llm_config.hidden_size
    assert llm.vocabulary.size == CODES
    added = llm.model.num_parameters() - full_size.parameters_before
    assert added == 2 * width * (CODES + 2)  # and the start and the end of a mask
    assert llm.image_size == 448
    with torch.no_grad():
        embedded = image_embeddings(llm.model, pixels(1))
    assert embedded.shape == (1, llm.model.config.image_seq_length, width) == (1, 256, width)


def test_a_supervised_pass_of_one_process(full_size: FullSize) -> None:
    llm, settings = full_size.llm, full_size.settings("altollm_sft")
    images = settings["training"]["images_per_pass"]
    assert full_size.a_process("altollm_sft", "images_per_step") % images == 0
    assert settings["gradient_checkpointing"]
    answer = [*llm.vocabulary.encode(range(LONGEST)), llm.turn_end]
    branch = Branch(ids=[*PROMPT, *answer], prompt_length=len(PROMPT))
    prefix = llm.prefix(llm.model.config.image_seq_length)
    batch = pack(
        [prefix] * images,
        [[branch] * settings["records_per_image"]] * images,
        padding_id=PADDING,
        image_token=llm.model.config.image_token_id,
    )
    objective = SupervisedLoss(llm.model)
    with OneDevice():
        activations, loss = kept_bytes(llm.model, lambda: objective(pixels(images), batch)["loss"])
        loss.backward()
    assert all(parameter.grad is not None for parameter in llm.model.model.language_model.parameters())
    llm.model.zero_grad()
    states = full_size.estimated_bytes("altollm_sft", llm.model.num_parameters())
    print(
        f"{full_size.case.profile}: SFT {states / 1e9:.1f} GB of states, {activations / 1e9:.1f} GB kept for backward"
    )
    assert states + activations < 0.9 * GPU_BYTES


def test_scoring_a_pass_of_a_rollout_of_one_process(full_size: FullSize) -> None:
    llm, settings = full_size.llm, full_size.settings("altollm_grpo")
    prompts = settings["training"]["prompts_per_pass"]
    assert full_size.a_process("altollm_grpo", "prompts_per_step") % prompts == 0
    assert settings["gradient_checkpointing"]
    answers = [[*llm.vocabulary.encode(range(LONGEST)), llm.turn_end]] * settings["group_size"]
    image = torch.empty(
        prompts, 256, llm.model.config.text_config.hidden_size, device="meta", dtype=torch.bfloat16
    )

    def score() -> Tensor:
        return answer_log_probs(
            llm.model,
            llm.grammar,
            image,
            llm.prefixes(image),
            [Group(prompt=PROMPT, answers=answers)] * prompts,
            max_length=LONGEST,
            temperature=1.0,
            padding_id=PADDING,
        ).log_probs

    with OneDevice():
        activations, log_probs = kept_bytes(llm.model, score)
        log_probs.sum().backward()
    trained = sum(parameter.numel() for parameter in language_parameters(llm.model))
    assert sum(each.numel() for each in llm.model.parameters() if each.grad is not None) == trained
    whole = 2 * llm.model.num_parameters()  # in bfloat16
    llm.model.zero_grad()
    assert log_probs.shape == (prompts * settings["group_size"], LONGEST + 3)
    states = full_size.estimated_bytes("altollm_grpo", trained)
    print(
        f"{full_size.case.profile}: GRPO {states / 1e9:.1f} GB of states, {whole / 1e9:.1f} GB of whole weights for a "
        f"rollout, {activations / 1e9:.1f} GB kept for backward"
    )
    assert states + max(whole, activations) < 0.9 * GPU_BYTES


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "processes"), [(2, 8), (3, 8), (3, 1)])
def test_estimated_memory_is_near_deepspeeds_own(stage: int, processes: int) -> None:
    """Which counts 4 bytes more a parameter, for gradients in float32 as well, and for stage 3 the largest layer."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    parameters = 8_083_770_368
    if stage == 2:
        _, theirs = estimate_zero2_model_states_mem_needs(parameters, processes, cpu_offload=False)
    else:
        _, theirs, _ = estimate_zero3_model_states_mem_needs(
            parameters, 0, processes, cpu_offload=False, cpu_offload_params=False
        )
    ours = estimated_bytes(parameters, processes, stage)
    assert theirs - ours == pytest.approx((4 if stage == 2 else 2) * parameters / processes, rel=1e-6)
