"""An even draw over questions of different quality, as ALFA draws its own (appendix B).

How good a question is nobody has said. Three measures stand in for it: whether the asker is a verified expert, whether
the thread ends with a conclusion, and whether the post's author was pleased. They make eight groups, of which as many
questions are drawn, or all where a group has fewer. For the test split only questions of threads with a conclusion are.
The draw is by hash of seed and id, so that it depends on no order, and a larger one holds the smaller.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from askwell.records import Thread

Group = tuple[bool, bool, bool]


def group_of(thread: Thread) -> Group:
    """Verified expert, conclusion, pleased author; what is not known counts as no."""
    return thread.expert, thread.conclusion is not None, bool(thread.thanked)


def evenly(threads: Iterable[Thread], count: int, *, seed: int) -> list[Thread]:
    """At most `count` of the questions, in their order."""
    groups: defaultdict[Group, list[str]] = defaultdict(list)
    held = list(threads)
    for thread in held:
        if thread.split != "test" or thread.conclusion is not None:
            groups[group_of(thread)].append(thread.id)
    chosen: set[str] = set()
    for place, group in enumerate(sorted(groups, key=lambda group: (len(groups[group]), group))):
        share = (count - len(chosen)) // (len(groups) - place)  # what small groups leave goes to the larger ones
        chosen |= set(
            sorted(groups[group], key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())[:share]
        )
    return [thread for thread in held if thread.id in chosen]
