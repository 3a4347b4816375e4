"""Training checkpoints: all that a run needs to go on as if it had never been interrupted."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from alto_models.checkpoint import replace_atomically

TRAINING_STATE_FILE = "training_state.pt"


def save_training_state(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Replace the training checkpoint in `folder` (made if need be) in one atomic step.

    step: number of optimizer steps done.
    extra: anything else of tensors, numbers, strings, lists and dicts (`torch.load(weights_only=True)`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random_state(),
        "extra": dict(extra or {}),
    }
    replace_atomically(folder / TRAINING_STATE_FILE, lambda path: torch.save(state, path))


def restore_training_state(
    folder: Path, model: nn.Module, optimizer: Optimizer
) -> tuple[int, dict[str, Any]] | None:
    """Load the checkpoint in `folder` into `model`, `optimizer` and the global random generators.

    Returns (steps done, extra), or None where there is no checkpoint yet.
    """
    path = folder / TRAINING_STATE_FILE
    if not path.is_file():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"], strict=True)
    optimizer.load_state_dict(state["optimizer"])
    set_random_state(state["random"])
    return state["step"], state["extra"]


def random_state() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
