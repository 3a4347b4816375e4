"""Group relative policy optimisation: advantages and loss.

Shao et al., "DeepSeekMath" (2024), and Liu et al., "Understanding R1-Zero-like training" (2025) for the
variant `dr_grpo`. Letters: P prompts, G samples of each (a group), N = P x G, T tokens.
"""

from typing import Literal

import torch
from torch import Tensor

Variant = Literal["grpo", "dr_grpo"]


def advantages(rewards_PG: Tensor, variant: Variant) -> Tensor:  # noqa: N803
    """(P, G): (r - mean) / (standard deviation + 0.1) within each group; dr_grpo leaves the division out.

    The deviation is the population's (divided by G).
    """
    centred = rewards_PG - rewards_PG.mean(1, keepdim=True)
    if variant == "dr_grpo":
        return centred
    return centred / (rewards_PG.std(1, keepdim=True, correction=0) + 0.1)


def grpo_loss(
    log_probs_NT: Tensor,  # noqa: N803
    advantages_N: Tensor,  # noqa: N803
    counted_NT: Tensor,  # noqa: N803
    *,
    old_log_probs_NT: Tensor | None = None,  # noqa: N803
    reference_log_probs_NT: Tensor | None = None,  # noqa: N803
    clip: float = 0.2,
    kl_weight: float = 0.0,
    variant: Variant = "grpo",
    max_tokens: int = 1,
) -> Tensor:
    """Scalar to minimise: the clipped policy gradient of each token, plus the KL to a reference.

    log_probs_NT: of the sampled tokens under the policy. counted_NT: bool, True up to the end of the answer;
    nothing after it matters. old_log_probs_NT: under the policy that sampled; None: the policy itself.
    grpo averages over the tokens of a sample; dr_grpo divides their sum by the constant `max_tokens`.
    """
    old = log_probs_NT.detach() if old_log_probs_NT is None else old_log_probs_NT
    ratio = torch.exp(log_probs_NT - old)
    gain = torch.minimum(
        ratio * advantages_N[:, None], ratio.clamp(1 - clip, 1 + clip) * advantages_N[:, None]
    )
    token_loss = -gain
    if reference_log_probs_NT is not None:
        token_loss = token_loss + kl_weight * kl_estimate(log_probs_NT, reference_log_probs_NT)
    token_loss = torch.where(counted_NT, token_loss, 0.0)
    tokens = counted_NT.sum(1).clamp(min=1) if variant == "grpo" else max_tokens
    return (token_loss.sum(1) / tokens).mean()


def kl_estimate(log_probs_NT: Tensor, reference_log_probs_NT: Tensor) -> Tensor:  # noqa: N803
    """(N, T) KL of the policy to a reference, by the estimator r - log r - 1 with r = reference / policy."""
    difference = reference_log_probs_NT - log_probs_NT
    return torch.exp(difference) - difference - 1
