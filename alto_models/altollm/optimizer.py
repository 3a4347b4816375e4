"""Optimizers of language models.

`muon`, for small ones: Muon for the matrices of linear layers, AdamW for the rest. `adamw`: as InternVL was trained.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from alto_models.training.muon import Muon

OptimizerName = Literal["muon", "adamw"]

BETAS = (0.9, 0.98)


def build_optimizer(
    model: nn.Module,
    weight_decay: float = 0.0,
    rate_scales: Mapping[nn.Module, float] | None = None,
    name: OptimizerName = "muon",
) -> Optimizer:
    """Over the parameters that require gradients; only matrices decay, and word embeddings are none.

    rate_scales: parts of the model -> factor on their learning rate (1 elsewhere).
    """
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    linear -= {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    scale_of = {
        id(parameter): scale for part, scale in (rate_scales or {}).items() for parameter in part.parameters()
    }
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        matrices, scale = id(parameter) in linear, scale_of.get(id(parameter), 1.0)
        decay = weight_decay if matrices else 0.0
        group = {"params": [], "matrices": matrices, "rate_scale": scale, "weight_decay": decay}
        groups.setdefault((matrices, scale), group)["params"].append(parameter)
    if name == "muon":
        return Muon(groups.values(), betas=BETAS, weight_decay=0.0)
    for group in groups.values():
        del group["matrices"]
    return torch.optim.AdamW(groups.values(), betas=BETAS, weight_decay=0.0)
