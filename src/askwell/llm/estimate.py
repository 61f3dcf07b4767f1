"""What a stage will take: calls, tokens and money, before anything is sent.

Calls are exact. Tokens are read off what the same role's calls to the same model have been like, if there were enough
of them (a straight line over the bytes of the prompt, by least squares); else a token is taken to be four bytes, and
the answers are only known to be `max_tokens` at most. A look at a few items (`--limit 30`) makes the estimate a good
one.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from askwell.llm import chat
from askwell.llm.chat import Request
from askwell.llm.store import Answers, Habit
from askwell.recipes import Endpoint

ENOUGH = 10
"""Calls from which the rest is judged."""
GUESS = 0.25
"""Tokens a byte where nothing is known."""


def estimate(endpoint: Endpoint, path: Path, requests: Iterable[Request]) -> dict[str, object]:
    """Calls to make, those whose answers are stored already, tokens and cost; reads the store where there is one."""
    answers = Answers(path)
    try:
        stored, sizes, role = 0, [], ""
        name = f"{endpoint.base_url.rstrip('/')} {endpoint.model}"
        structured = endpoint.structured if endpoint.structured != "auto" else answers.ability(name) or "json_schema"
        fields: dict[Any, dict[str, Any]] = {}
        keys: set[str] = set()
        for request in requests:
            if request.kind not in fields:
                fields[request.kind] = chat.settings(endpoint, request.kind, structured)
            body = chat.body_of(fields[request.kind], request)
            key = chat.key_of(endpoint.base_url, body, request.sample)
            if answers.answer(key) is not None:
                stored += 1
            elif key not in keys:  # equal requests are one call
                keys.add(key)
                sizes.append(chat.size_of(body, request))
                role = request.role
        habit = answers.habit(endpoint.model, role)
    finally:
        answers.close()
    return {"calls": len(sizes), "answers stored already": stored, **tokens(endpoint, sizes, habit)}


def tokens(endpoint: Endpoint, sizes: list[int], habit: Habit | None) -> dict[str, object]:
    """Tokens and cost of calls of so many bytes."""
    prices = endpoint.prices
    if habit is None or habit.calls < ENOUGH:
        prompt, completion = round(GUESS * sum(sizes)), len(sizes) * endpoint.max_tokens
        note = "a guess, answers at their longest; run a few items with --limit and it will be better"
        return {
            "prompt tokens": prompt,
            "completion tokens at most": completion,
            "cost at most": cost(prompt, completion, prices.prompt, prices.completion),
            "estimate": note,
        }
    prompt = round(sum(habit.prompt.at(size) for size in sizes))
    completion = round(sum(min(endpoint.max_tokens, habit.completion.at(size)) for size in sizes))
    return {
        "prompt tokens": prompt,
        "completion tokens": completion,
        "cost": cost(prompt, completion, prices.prompt, prices.completion),
        "estimate": f"from {habit.calls} calls like these",
    }


def cost(prompt: int, completion: int, per_prompt: float, per_completion: float) -> float:
    """In the currency of the prices, which are per million tokens."""
    return round((prompt * per_prompt + completion * per_completion) / 1e6, 4)
