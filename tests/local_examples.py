"""Small models for tests of the local endpoint: one that babbles, one that was taught its answers."""

import torch

from askwell import rendering, weights
from askwell.recipes import ScratchModel
from askwell.records import Message

STOP = "<stop />"


def babbler():
    """A policy from nothing, with weights so large that no greedy choice hangs on the last digit."""
    policy = weights.create(
        ScratchModel(vocabulary=300, hidden=32, layers=2, heads=2), ["a b c"], stop_marker=STOP, seed=5
    )
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(8)
    return policy


def pupil(lessons, *, steps=150):
    """A policy that says exactly what each of some prompts was answered with; `lessons` pairs messages and a text."""
    texts = [text for messages, answer in lessons for text in (*(message["content"] for message in messages), answer)]
    policy = weights.create(
        ScratchModel(vocabulary=1200, hidden=64, layers=2, heads=2), texts * 4, stop_marker=STOP, seed=5
    )
    pairs = [
        rendering.render(policy.tokenizer, [Message(**message) for message in messages], answer, prompt="")
        for messages, answer in lessons
    ]
    optimizer = torch.optim.Adam(policy.model.parameters(), 5e-3)
    for _ in range(steps):
        loss = sum(loss_of(policy.model, before, after) for before, after in pairs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.01 * len(pairs):
            return policy
    raise AssertionError(f"not learned: {loss}")


def loss_of(model, before, after):
    logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(after))
