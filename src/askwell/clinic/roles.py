"""Every role of a language model, played by the clinic: it gets the prompts that a large model would get.

`answer` is the reply function of `askwell.mock_endpoint`: from the body of a chat completion to the text of the answer.
It knows a role by its prompt's own first part, reads the fenced texts in the other as anyone would, and answers with
the oracle's truth. With an error rate it is wrong that often, always about the same requests: an extractor leaves a
fact out or makes one up, a judge gives any verdict. What stands in no known prompt it answers in a plain sentence.
Rewriting and ranking questions stand in `clinic.variants`, comparing two of them in `clinic.comparing`, building cases
and checking them in `clinic.casework`. A request may bring its own error rates and biases in its body: `errors`
{"enhance": 0.1}, `biases` {"order": 0.3}.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from random import Random
from typing import Any, ClassVar

from askwell.clinic.casework import Casework
from askwell.clinic.comparing import PairJudge, biased
from askwell.clinic.interviewing import Interviewing
from askwell.clinic.knowledge import World
from askwell.clinic.language import oracle_of, sentences
from askwell.clinic.quality import Quality
from askwell.clinic.variants import Writer
from askwell.llm import prompts

REMEMBERED = 256
"""Conversations whose reading is kept: all replies to a turn come with the same one."""
TASK = re.compile(r"^Task: ([a-z]+)(?:_knowing)?\.", re.MULTILINE)
FENCED = re.compile(r"<data (\w+)>\n(.*?)\n</data \1>", re.DOTALL)
Body = dict[str, Any]


class Roles:
    """The clinic's answers. `errors` maps a role (the name of its prompt) to the share of requests it gets wrong,
    `biases` what the judge of pairs falls for (`comparing.BIASES`) to how often it does."""

    NAMES: ClassVar[tuple[str, ...]] = (
        *("extract_dialogue", "extract_turn", "grade", "compare"),
        *("rewrite", "enhance", "corrupt", "rank", "propose"),
        *("facts", "inquiry", "distractors", "revise", "support", "options", "choose"),
        *("patient_direct", "patient_instruct", "patient_facts", "decide"),
        *("abstain_binary", "abstain_numerical", "abstain_cutoff", "abstain_implicit", "abstain_scale"),
    )

    def __init__(
        self,
        world: World,
        *,
        errors: Mapping[str, float] | None = None,
        biases: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.world, self.oracle, self.seed = world, oracle_of(world), seed
        self.errors, self.biases = dict(errors or {}), dict(biases or {})
        self.interviewing = Interviewing(world, self.oracle)
        self.roles: dict[str, Callable[[list[str], Random | None], object]] = {
            "extract_dialogue": self.extract,
            "extract_turn": self.extract,
            "grade": self.grade,
            **self.interviewing.roles,
        }
        quality = Quality(self.oracle)
        self.writer, self.pairs = Writer(quality), PairJudge(quality)
        self.casework = Casework(world, self.oracle)
        # Up to its first field, a prompt's first part is the same in every request.
        starts = {name: prompts.load(name).system for name in (*self.roles, "compare", "propose")}
        for name, task in (("synthesize", "rank"), ("build_case", "facts"), ("check_case", "options")):
            starts[name] = prompts.load(name, task).system
        self._known = {prompts.FIELD.split(start)[0]: name for name, start in starts.items()}
        self._told = lru_cache(maxsize=REMEMBERED)(self._read_told)
        self._fact_of = {self.fact(finding, there): finding for finding in world.finding_ids for there in (True, False)}

    def answer(self, body: Body) -> str:
        """The text of an answer."""
        messages = body["messages"]
        name = next((name for start, name in self._known.items() if messages[0]["content"].startswith(start)), None)
        if name is None and (question := self.interviewing.ask(messages)) is not None:
            return question
        text = messages[1]["content"] if len(messages) > 1 else ""
        parts = [part for _, part in FENCED.findall(text)]
        errors = body.get("errors") or self.errors
        if name in self.roles:
            answer = self.roles[name](parts, self.wrong(name, parts, errors))
            return answer if isinstance(answer, str) else json.dumps(answer)
        if name == "compare":
            return json.dumps(self.compare(parts, body.get("biases") or self.biases, self.wrong(name, parts, errors)))
        task = FENCED.sub("", text)
        found = TASK.search(task)
        several = {"synthesize": self.writer, "build_case": self.casework, "check_case": self.casework}
        role = found[1] if name in several and found else name
        if role not in self.NAMES:
            return "I play the roles of a simulated clinic and do not know this one."
        wrong = self.wrong(role, [*parts, task], errors) is not None
        draw = self.draw(role, [*parts, task], "how")
        return json.dumps(getattr(several.get(name or "", self.writer), role)(parts, task, draw, wrong=wrong))

    def wrong(self, role: str, parts: list[str], errors: Mapping[str, float] | None = None) -> Random | None:
        """Where this request is one that the role gets wrong: the draw of how. The same request, the same mistake."""
        if not (rate := (self.errors if errors is None else errors).get(role, 0.0)):
            return None
        draw = self.draw(role, parts)
        return draw if draw.random() < rate else None

    def draw(self, role: str, parts: list[str], *more: str) -> Random:
        """What is drawn for a request: the same every time."""
        return Random(hashlib.sha256(json.dumps([self.seed, role, parts, *more]).encode()).digest())

    def fact(self, finding: str, present: bool) -> str:
        """A finding as a fact in words."""
        lay = self.world.findings[self.world.place[finding]].lay[0]
        return f"{'has' if present else 'does not have'} {lay}"

    def finding_of(self, fact: str) -> str | None:
        """The finding behind a fact in the words of `fact`."""
        return self._fact_of.get(fact)

    def extract(self, parts: list[str], wrong: Random | None) -> object:
        """The facts that the expert asks for and the person then tells, in the last of the parts."""
        facts: list[dict[str, Any]] = []
        asked: dict[str, int] = {}
        for message in map(json.loads, parts[-1].splitlines()):
            if message["speaker"] == "expert":
                question = self.oracle.question(message["says"])
                if question is not None:
                    asked |= {finding: int(message["number"]) for finding in question.findings}
                continue
            for sentence in sentences(message["says"]):
                for finding, present in self.oracle.statements(sentence).items():
                    if finding in asked:
                        fact = {"quote": sentence, "fact": self.fact(finding, present)}
                        facts.append({**fact, "asked": asked.pop(finding), "told": message["number"]})
        if wrong is not None:
            facts = self.mistaken(facts, wrong)
        return {"facts": facts}

    def mistaken(self, facts: list[dict[str, Any]], draw: Random) -> list[dict[str, Any]]:
        """One fact left out, or one that is true of somebody else."""
        if facts and draw.random() < 0.5:
            facts.pop(draw.randrange(len(facts)))
        elif facts:
            other = draw.choice(self.world.finding_ids)
            facts.append({**draw.choice(facts), "fact": self.fact(other, draw.random() < 0.5)})
        return facts

    def grade(self, parts: list[str], wrong: Random | None) -> object:
        """What a reply is worth against the facts still to be found out."""
        facts, conversation, reply = parts
        wanted = {self.finding_of(json.loads(fact)) for fact in facts.splitlines()}
        question = self.oracle.question(reply)
        count = "none" if question is None else "two" if question.fault == "double" else "one"
        if question is None and "?" in reply:
            count = "one"
        asked = set(question.findings) if question else set()
        if wrong is not None:
            match = wrong.choice(("direct", "related", "neither"))
            return {"reason": "a mistake", "questions": count, "match": match}
        known = self.told(conversation)
        match = "direct" if asked & wanted else "related" if asked - known else "neither"
        return {"reason": f"asks for {', '.join(sorted(asked)) or 'nothing'}", "questions": count, "match": match}

    def compare(self, parts: list[str], biases: Mapping[str, float], wrong: Random | None) -> object:
        """Which of two questions is better."""
        if wrong is not None:
            return {"reason": "a mistake", "verdict": wrong.choice(("first", "second", "tie"))}
        for bias, rate in biases.items():
            if self.draw(bias, parts).random() < rate:
                return {"reason": f"a weakness for {bias}", "verdict": biased(parts[2], parts[3], bias)}
        conversation, criterion, first, second = parts
        verdict, reason = self.pairs.verdict(conversation, criterion, first, second)
        return {"reason": reason, "verdict": verdict}

    def told(self, conversation: str) -> frozenset[str]:
        """What the person has said so far."""
        return self._told(conversation)

    def _read_told(self, conversation: str) -> frozenset[str]:
        found: set[str] = set()
        for message in map(json.loads, conversation.splitlines()):
            if message["speaker"] == "person":
                found |= self.oracle.statements(message["says"]).keys()
        return frozenset(found)
