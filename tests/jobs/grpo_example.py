"""GRPO of a tiny untrained model, in this process or in one of several."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from alto_models.altollm import answering, generation, scoring
from alto_models.altollm.answering import Answer
from alto_models.altollm.rewards import Reward
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.training.processes import process_rank
from jobs import altollm_training
from jobs.altollm_grpo import Config
from jobs.grpo_training import rollouts
from jobs.grpo_training.training import Optimisation
from tests.alto_models.altollm.tiny import untrained
from tests.alto_models.tokenizer.tiny import TINY
from tests.alto_models.training.zero_example import die_at
from tests.jobs.tokenizer_example import ROOT, context, merged, parameters

RESULT = "result.pt"


def reward_every_answer(patch: pytest.MonkeyPatch) -> None:
    """An untrained model's masks are all alike; and its answers in words are long."""

    def earned(answer: Answer, *_: Any, **__: Any) -> Reward:
        return Reward(len(answer.text) % 7 / 7, 0.0, 0.0)

    patch.setattr(rollouts, "reward", earned)
    patch.setattr(answering, "generate", partial(generation.generate, max_text_tokens=8))


def optimisation(records: Path, folder: Path, work: Path | None = None, **changes: Any) -> Optimisation:
    """work: of checkpoints, where another process than the first is to find them."""
    config = Config.model_validate(merged(parameters("altollm_grpo"), changes))
    torch.manual_seed(3)
    tokenizer = MaskTokenizer(TINY).eval()
    run = context(folder, "altollm_grpo", prepare_referring=records)
    return Optimisation(config, replace(run, work=work or run.work), untrained(), tokenizer)


def run(
    folder: Path,
    rank: int,
    processes: int,
    *,
    records: Path,
    changes: dict[str, Any],
    share_all: bool = False,
    killed_while_saving: int | None = None,
) -> None:
    """Train in one of `processes`; the first leaves curve, weights and last answers in `folder`.

    share_all: ZeRO 3 shares out small weights, too, and logits are computed a few rows at a time.
    """
    torch.set_num_threads(1)
    own = folder / str(rank)
    shutil.rmtree(own / "altollm_grpo" / "output", ignore_errors=True)
    if processes > 1:
        meeting = f"file://{folder / 'meeting'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
        os.environ["LOCAL_RANK"] = str(rank)
    if killed_while_saving is not None:
        die_at(killed_while_saving)
    with pytest.MonkeyPatch.context() as patch:
        reward_every_answer(patch)
        if share_all:
            patch.setattr(altollm_training, "DEEPSPEED_FOLDER", settings_that_share_all(own))
            patch.setattr(scoring, "LOGITS_AT_ONCE", 500)
        work = folder / "0" / "altollm_grpo" / "work"
        training = optimisation(records, own, work, **changes)
        training.run()
    if process_rank() == 0:
        result = {
            "log": [(point.step, dict(point.values)) for point in training.context.metric_log.read()],
            "model": training.llm.model.state_dict(),
            "answers": [group.answers for rollout in training.rollouts for group in rollout.groups],
        }
        torch.save(result, folder / RESULT)


def settings_that_share_all(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    settings = json.loads((ROOT / "infra/deepspeed/zero3.json").read_text())
    settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (folder / "zero3.json").write_text(json.dumps(settings))
    return folder
