"""The benchmarks of ALToLLM run, and both procedures compute the same."""

import numpy as np
import torch

from alto_models.tokenizer.config import TokenizerConfig
from alto_models.tokenizer.whole_image import mask_grids
from tests.alto_models.altollm.tiny import NETWORK
from tests.benchmarks import grpo_step, questions_per_image, sft_step
from tests.benchmarks.language_models import LanguageModelSize, mask_prompts, pictures, untrained

TINY = LanguageModelSize(
    name="tiny",
    network=NETWORK,
    masks=TokenizerConfig(
        mask_size=16,
        grid=2,
        max_length=5,
        width=16,
        heads=2,
        codebook_size=3,
        pixel_encoder={"kind": "conv", "image_size": 32},
    ),
    group_size=3,
    prompts=2,
)


def moved(step: grpo_step.Step) -> grpo_step.Step:
    """With a policy that is no longer its reference."""
    with torch.no_grad():
        for parameter in step.trained:
            parameter.mul_(1.3)
    return step


def test_both_procedures_take_the_same_step() -> None:
    published, ours = moved(grpo_step.Published(TINY)), moved(grpo_step.Ours(TINY))
    for step in (published, ours):
        step.all()
    assert published.answers == ours.answers
    assert len({len(answer) for answer in ours.answers}) > 1
    torch.testing.assert_close(published.reference_log_probs, ours.reference_log_probs, atol=1e-4, rtol=0)
    assert ours.advantages.any()
    for theirs, mine in zip(published.trained, ours.trained, strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(theirs.grad, mine.grad, atol=1e-5, rtol=1e-3)


def test_grpo_step_runs() -> None:
    table = grpo_step.step_table(TINY, repeats=1)
    assert all(label in table for label in (*grpo_step.PARTS.values(), "together"))


def test_sharing_an_image_changes_no_answer() -> None:
    llm, (picture,) = untrained(TINY), pictures(1)
    prompts = mask_prompts(llm, 4)
    shared = questions_per_image.asked(llm, picture, prompts, 5, 1)
    assert shared == questions_per_image.asked(llm, picture, prompts, 5, 4)
    assert shared == [questions_per_image.asked(llm, picture, [each], 5, 1)[0] for each in prompts]


def test_questions_per_image_runs() -> None:
    assert min(questions_per_image.answer_times(TINY, 2, repeats=1).values()) > 0


SFT_STEP = sft_step.StepSize(models=TINY, images=2, records=3, height=40, width=56)


def test_a_step_learns_the_same_from_stored_codes() -> None:
    stored, made_anew = (sft_step.Step(SFT_STEP) for _ in range(2))
    assert stored.learn(stored.stored_codes) == made_anew.learn(made_anew.codes_from_runs())
    for mine, theirs in zip(stored.llm.model.parameters(), made_anew.llm.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_masks_decoded_at_full_size_are_those_cut_from_runs() -> None:
    step = sft_step.Step(SFT_STEP)
    side = step.tokenizer.config.mask_size
    from_runs = mask_grids(step.tokenizer, step.masks)[:, 0].numpy()
    from_pixels = np.stack([sft_step.resized(each, side) for each in step.masks])
    assert (from_runs == from_pixels).mean() > 0.95
    assert 0.02 < from_runs.mean() < 0.5


def test_sft_step_runs() -> None:
    assert min(sft_step.step_times(SFT_STEP, repeats=1).values()) > 0
