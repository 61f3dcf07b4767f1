"""One function that reads a policy's reply: does it stop, or what does it ask?

The published graders look for the stop marker as a substring anywhere; a question that merely mentions it would
end the conversation. Here a reply stops iff its last line is the marker.
"""

import re
from typing import NamedTuple

from askwell.records import Decision

SENTENCE_END = re.compile(r"[?？؟][?？؟!！]*")


class Parsed(NamedTuple):
    """A reply, read: the decision, the text less the marker, and whether it was the bare marker."""

    decision: Decision
    text: str
    bare: bool


def parse(reply: str, stop_marker: str = "<stop />") -> Parsed:
    """Read a reply. It stops iff its last line that is not blank is the stop marker, white space aside."""
    lines = reply.strip().splitlines() or [""]
    if lines[-1].strip() == stop_marker:
        text = "\n".join(lines[:-1]).strip()
        return Parsed("stop", text, bare=not text)
    return Parsed("continue", reply.strip(), bare=False)


def question_marks(text: str) -> int:
    """How many questions end in a question mark; a run of marks ("?!?") ends one."""
    return len(SENTENCE_END.findall(text))
