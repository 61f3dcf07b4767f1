"""The mathematics of PPO (Schulman et al., 2017), on tensors alone: rewards of tokens, advantages, clipped losses.

Replies are rows of (B, T), their tokens marked by a mask from the left; or all tokens one after another, (S,).
"""

from typing import NamedTuple

import torch

MOST_ERROR = 0.2
"""How far off its target the divergence counts as, at most, when its coefficient is adapted."""


class Clipped(NamedTuple):
    """A loss of each token (S,), and where the clipped side of it is what counts."""

    losses: torch.Tensor
    clipped: torch.Tensor


def token_rewards(scores: torch.Tensor, divergence: torch.Tensor, mask: torch.Tensor, *, kl: float) -> torch.Tensor:
    """What each token is worth (B, T): -kl times its divergence from the reference; the last one the score (B,) too."""
    rewards = -kl * divergence * mask
    last = mask.sum(1) - 1
    return rewards.index_put((torch.arange(len(scores), device=scores.device), last), scores, accumulate=True)


def advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, *, discount: float, trace: float
) -> torch.Tensor:
    """Generalized advantages (B, T) (Schulman et al., 2016): sums of (discount * trace)^k times the errors ahead.

    The error of a token is its reward and the discounted value after it, less the value (B, T) before it; a reply's end
    is worth nothing more. Added to the values, they are the returns that these are to learn.
    """
    found = torch.zeros_like(rewards)
    ahead = value_ahead = rewards.new_zeros(len(rewards))
    for place in reversed(range(rewards.shape[1])):
        here = mask[:, place]
        error = rewards[:, place] + discount * value_ahead - values[:, place]
        ahead = torch.where(here, error + discount * trace * ahead, 0.0)
        value_ahead = torch.where(here, values[:, place], 0.0)
        found[:, place] = ahead
    return found


def policy_loss(
    logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, *, low: float, high: float
) -> Clipped:
    """-min(r A, clip(r, 1 - low, 1 + high) A) of tokens (S,), r the ratio of their probabilities to the old ones."""
    ratios = (logprobs - old).exp()
    plain, bounded = -ratios * advantages, -ratios.clamp(1 - low, 1 + high) * advantages
    return Clipped(torch.maximum(plain, bounded), bounded > plain)


def value_loss(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, *, clip: float) -> Clipped:
    """Half the squared error of values (S,), or that of values within `clip` of the old ones where it is larger."""
    plain = (values - returns) ** 2
    bounded = (old + (values - old).clamp(-clip, clip) - returns) ** 2
    return Clipped(torch.maximum(plain, bounded) / 2, bounded > plain)


def next_coefficient(kl: float, measured: float, *, target: float, rate: float) -> float:
    """The coefficient for the next draw, where this one's divergence was `measured` nats a reply.

    kl * (1 + rate * error), the error relative to the target and within 0.2 (Ziegler et al., 2019, section 2.2).
    """
    error = min(max(measured / target - 1, -MOST_ERROR), MOST_ERROR)
    return kl * (1 + rate * error)
