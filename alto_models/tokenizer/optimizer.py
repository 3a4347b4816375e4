"""Optimizer of the mask tokenizer: Muon for the transformers' matrices, AdamW for the rest."""

from typing import Any

from torch import nn

from alto_models.tokenizer.transformer import Transformer
from alto_models.training.muon import Muon

# Muon's updates keep all directions of a matrix alive, and bear larger steps than AdamW's.
MATRIX_RATE_SCALE = 5.0
BETAS = (0.9, 0.99)


def build_optimizer(model: nn.Module, weight_decay: float) -> Muon:
    """Over the parameters that require gradients; only the transformers' matrices decay."""
    matrix_ids = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Transformer)
        for parameter in module.parameters()
        if parameter.ndim == 2
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for parameter in trained if id(parameter) in matrix_ids],
            "matrices": True,
            "rate_scale": MATRIX_RATE_SCALE,
            "weight_decay": weight_decay,
        },
        {"params": [parameter for parameter in trained if id(parameter) not in matrix_ids]},
    ]
    return Muon([group for group in groups if group["params"]], betas=BETAS, weight_decay=0.0)
