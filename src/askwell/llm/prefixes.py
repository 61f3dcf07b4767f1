"""How much of the prompts a server need not read again: the share that repeats an earlier request's beginning.

A server with a prefix cache computes what a prompt has in common with the beginning of an earlier one once. Counted in
characters of the messages' texts, system and user, in whichever order the requests come: what is new to a request are
the nodes that it adds to the tree of all texts, and a tree's size depends on no order. A cache has bounds and blocks,
so that a server will serve somewhat less.
"""

from collections.abc import Iterable, Mapping


class Prefixes:
    """Adds up requests, in groups: what requests of different groups share is what all of them do, or else not seen."""

    def __init__(self) -> None:
        self.requests = self.characters = self.new = 0
        self._any = ""

    def add(self, requests: Iterable[tuple[Mapping[str, str], ...]]) -> None:
        """A group of requests by their messages, such as all those about one post."""
        texts = ["\0".join(message["content"] for message in messages) for messages in requests]
        self.requests += len(texts)
        self.characters += sum(map(len, texts))
        # In the order of the alphabet each text shares most with the one before it.
        ordered = sorted([*texts, self._any])
        self.new += sum(len(text) - shared(before, text) for before, text in zip(["", *ordered], ordered, strict=False))
        self.new -= len(self._any)
        self._any = self._any or (texts[0] if texts else "")

    @property
    def repeated(self) -> float | None:
        """Share of the characters, in [0, 1]; None before the first request."""
        return 1 - self.new / self.characters if self.characters else None


def shared(one: str, other: str) -> int:
    """Length of the longest beginning that two texts share."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
