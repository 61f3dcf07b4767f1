"""PPO's mathematics against numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from askwell.training import advantages as ppo

MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_the_score_is_the_last_tokens_and_divergence_every_tokens():
    scores = torch.tensor([2.0, -1.0])
    divergence = torch.tensor([[0.5, -1.0, 2.0], [3.0, 9.0, 9.0]])
    found = ppo.token_rewards(scores, divergence, MASK, kl=0.1)
    # 2 - 0.1 * 2 on the third token; -1 - 0.1 * 3 on the only one; nothing beyond an end.
    torch.testing.assert_close(found, torch.tensor([[-0.05, 0.1, 1.8], [-1.3, 0.0, 0.0]]))


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 2.0], [5.0, 0.0, 0.0]])
    values = torch.tensor([[0.5, 1.0, 1.5], [2.0, 7.0, 7.0]])
    found = ppo.advantages(rewards, values, MASK, discount=0.9, trace=0.5)
    # Errors from the end: 2 - 1.5 = 0.5; 0 + 0.9 * 1.5 - 1 = 0.35; 1 + 0.9 * 1 - 0.5 = 1.4; each adds 0.45 of the next.
    expected = torch.tensor([[1.4 + 0.45 * 0.575, 0.35 + 0.45 * 0.5, 0.5], [3.0, 0.0, 0.0]])
    torch.testing.assert_close(found, expected)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6), st.floats(0, 1), st.integers(0, 99))
def test_with_a_whole_trace_an_advantage_is_the_return_less_the_value(rewards, discount, seed):
    values = torch.randn(len(rewards), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    row = torch.tensor([rewards], dtype=torch.float64)
    mask = torch.ones(1, len(rewards), dtype=torch.bool)
    found = ppo.advantages(row, values[None], mask, discount=discount, trace=1.0)
    returns = [
        sum(discount ** (later - place) * rewards[later] for later in range(place, len(rewards)))
        for place in range(len(rewards))
    ]
    torch.testing.assert_close(found[0] + values, torch.tensor(returns, dtype=torch.float64))


def test_the_ratio_is_clipped_only_where_that_makes_it_worse():
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0])
    logprobs = ratios.log().requires_grad_()
    found = ppo.policy_loss(logprobs, torch.zeros(5), advantages, low=0.2, high=0.3)
    torch.testing.assert_close(found.losses, torch.tensor([-2.6, 3.0, -1.0, 1.6, -2.2]))
    assert found.clipped.tolist() == [True, False, False, True, False]
    found.losses.sum().backward()
    # What is clipped has no gradient: r A elsewhere, whose derivative by log r is r A.
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, 3.0, -1.0, 0.0, -2.2]))


def test_the_value_is_clipped_only_where_that_makes_it_worse():
    found = ppo.value_loss(
        torch.tensor([1.0, 1.0, 0.1]), torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, 0.1, 1.0]), clip=0.2
    )
    # 0.2 instead of 1: error 0.8 rather than 0. 0.2 would be nearer than 1, so the plain error 0.9 counts.
    torch.testing.assert_close(found.losses, torch.tensor([0.32, 0.405, 0.405]))
    assert found.clipped.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("measured", "expected"), [(6.0, 0.05), (6.6, 0.0505), (60.0, 0.051), (0.0, 0.049), (-3.0, 0.049)]
)
def test_the_coefficient_follows_the_divergence(measured, expected):
    assert ppo.next_coefficient(0.05, measured, target=6.0, rate=0.1) == pytest.approx(expected)
    assert math.isfinite(expected)
