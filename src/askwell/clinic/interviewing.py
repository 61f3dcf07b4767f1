"""The clinic's part in interviews held through endpoints: patient, asker, decision maker, abstention rule.

It reads what was said and reasons exactly, so that a rule is as sure as the posterior and no surer. Of people who are
not its own it knows nothing: it asks what comes to mind, picks facts by shared words, and holds every option for
equally likely; which it says. That runs every part of an evaluation offline, and measures nothing.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from askwell.clinic import language
from askwell.clinic.knowledge import World
from askwell.clinic.language import Oracle, introduced
from askwell.clinic.reasoning import Belief, Myopic
from askwell.llm import prompts
from askwell.texts import prompt_file

YES, NO = "has ", "has not "
"""How a fact names a finding, before its id."""
SURE = 0.8
"""Posterior from which it says that it knows enough."""
STEPS = (
    (0.9, "very confident"),
    (0.75, "confident"),
    (0.5, "neither"),
    (0.25, "unconfident"),
    (0.0, "very unconfident"),
)
"""What a posterior is called on a scale of five."""
GAIN = 0.05
"""Nats that a question must gain for its asker to ask it, where it may stop."""
ENOUGH = 4
"""Questions after which it stops asking somebody of whom it understands nothing."""
WORD = re.compile(r"[a-z]{4,}")


def fact(finding: str, present: bool) -> str:
    """A finding as a fact."""
    return f"{YES if present else NO}{finding}"


def answers_in(facts: Sequence[str]) -> dict[str, bool]:
    """The findings that facts state."""
    return {text.removeprefix(NO).removeprefix(YES): not text.startswith(NO) for text in facts}


class Heard(NamedTuple):
    """A conversation as the clinic understands it: the posterior, and what was asked."""

    belief: Belief
    asked: frozenset[str]


class Interviewing:
    """Answers the prompts of interviews. `roles` maps the name of a prompt to what it makes of its fenced parts."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self.world, self.oracle = world, oracle
        self._conditions = {name: i for i, it in enumerate(world.conditions) for name in (it.id, it.name)}
        rules = {f"abstain_{rule}": self.abstain for rule in ("binary", "numerical", "cutoff", "implicit")}
        self.roles: dict[str, Callable[[list[str], Random | None], object]] = {
            "patient_direct": self.speak,
            "patient_instruct": self.speak,
            "patient_facts": self.pick,
            "decide": self.decide,
            **rules,
            "abstain_scale": self.rate,
        }
        # Prompts of askers have no second part: the chat itself follows.
        self._asks = {
            name: prompts.FIELD.split(prompt_file(name).read_text(encoding="utf-8").strip())[0]
            for name in ("policy", "policy_no_stop")
        }

    def heard(self, opening: str, said: Sequence[tuple[str, str]]) -> Heard | None:
        """What opening words, and questions with their answers, amount to; None where nobody says who they are."""
        person = next(
            (found for text in (opening, *(answer for _, answer in said)) if (found := introduced(text))), None
        )
        if person is None:
            return None
        answers, asked = self.oracle.statements(opening), set()
        for question, answer in said:
            if read := self.oracle.question(question):
                asked |= set(read.findings)
            answers |= self.stated(answer)
        return Heard(Belief.of(self.world, person, answers), frozenset(asked))

    def stated(self, text: str) -> dict[str, bool]:
        """The findings in an answer, said in the clinic's words or as bare facts."""
        bare = re.findall(rf"\b({NO}|{YES})({'|'.join(self.world.finding_ids)})\b", text)
        return {name: start == YES for start, name in bare} or self.oracle.statements(text)

    def ask(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """The next question of a chat whose first message is an asker's prompt, or its stop marker."""
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        name = next((name for name, start in self._asks.items() if system.startswith(start)), None)
        if name is None or len(messages) < 2:
            return None
        said = [(messages[i]["content"], messages[i + 1]["content"]) for i in range(2, len(messages) - 1, 2)]
        question = self.question(messages[1]["content"], said, may_stop=name == "policy")
        if question is not None:
            return question
        start, _, rest = prompt_file(name).read_text(encoding="utf-8").strip().partition("{stop_marker}")
        return system.removeprefix(start).removesuffix(rest)

    def question(self, opening: str, said: Sequence[tuple[str, str]], *, may_stop: bool) -> str | None:
        """What gains most information, in the clinic's words; None where it would stop."""
        draw = Random(json.dumps([opening, said]))
        heard = self.heard(opening, said)
        if heard is None:
            if may_stop and len(said) >= ENOUGH:
                return None
            return language.ask(self.world, draw.choice(self.world.finding_ids), draw)
        finding = Myopic(GAIN if may_stop else 0.0).next(heard.belief, heard.asked)
        if finding is None:
            return None if may_stop else language.ask(self.world, draw.choice(self.world.finding_ids), draw)
        return language.ask(self.world, finding, draw)

    def pick(self, parts: list[str], wrong: Random | None) -> object:
        """The facts that answer a question; where it errs, another one, or one that stands nowhere."""
        facts, question = [json.loads(line) for line in parts[0].splitlines()], parts[1]
        if wrong is not None:
            return {"facts": [wrong.choice([*facts, "has an invented complaint"])]}
        known = {name: text for text in facts for name in self.stated(text)}
        read = self.oracle.question(question)
        if read is not None and any(name in known for name in read.findings):
            return {"facts": [known[name] for name in read.findings if name in known]}
        asked = words(question)
        return {"facts": [text for text in facts if len(words(text) & asked) >= 2]}

    def speak(self, parts: list[str], wrong: Random | None) -> str:
        """An answer in the clinic's own words, for its own people; for others the record's sentence that fits best."""
        record, question = parts
        draw = Random(question + record)
        known = {name: there for name, there in answers_in(record.splitlines()).items() if name in self.world.place}
        read = self.oracle.question(question)
        told = [name for name in read.findings if name in known] if read else []
        if told:
            return " ".join(
                language.tell(self.world, name, known[name] is (wrong is None), draw) for name in dict.fromkeys(told)
            )
        asked = words(question)
        best = max(language.sentences(record) or [""], key=lambda sentence: len(words(sentence) & asked))
        return best if len(words(best) & asked) >= 2 else "I cannot answer that."

    def decide(self, parts: list[str], wrong: Random | None) -> object:
        """The most probable option, and its posterior probability."""
        _, options, conversation = parts
        names, texts = named(options)
        chances, why = self.chances(names, texts, conversation)
        best = names[max(range(len(names)), key=chances.__getitem__)]
        if wrong is not None:
            best = wrong.choice(names)
        return {"reason": why, "choice": best, "confidence": round(max(chances), 6)}

    def abstain(self, parts: list[str], wrong: Random | None) -> dict[str, Any]:
        """How sure one can be, in every form that a rule asks for; a reader takes the fields that it knows."""
        _, options, conversation = parts
        names, texts = named(options)
        chances, why = self.chances(names, texts, conversation)
        sure = max(chances) if wrong is None else wrong.random()
        opening, said = exchanges(conversation)
        asks = sure < SURE
        return {
            "reason": why,
            "enough": not asks,
            "confidence": round(sure, 6),
            "action": "ask" if asks else "answer",
            "question": (self.question(opening, said, may_stop=False) or "") if asks else "",
        }

    def rate(self, parts: list[str], wrong: Random | None) -> object:
        """The same with the confidence in words."""
        answer = self.abstain(parts, wrong)
        return {**answer, "confidence": next(name for least, name in STEPS if answer["confidence"] >= least)}

    def chances(self, names: Sequence[str], texts: Sequence[str], conversation: str) -> tuple[list[float], str]:
        """The probability of each option, and what it rests on. Options are conditions, called so or described so."""
        heard = self.heard(*exchanges(conversation))
        places = [
            self._conditions.get(name, self._conditions.get(text)) for name, text in zip(names, texts, strict=True)
        ]
        known = [place for place in places if place is not None]
        if heard is None or len(known) < len(places):
            # Some option must be named: always the same for the same options, and never surer than chance.
            place = int(hashlib.sha256(" ".join(names).encode()).hexdigest(), 16) % len(names)
            even = [1 / len(names)] * len(names)
            even[place] += 1e-9
            return even, "nobody whom the clinic knows: one option is as likely as another"
        posterior = [float(heard.belief.posterior[place]) for place in known]
        total = sum(posterior) or 1.0
        return [chance / total for chance in posterior], f"{len(heard.belief.answers)} findings are known"


def named(options: str) -> tuple[list[str], list[str]]:
    """The names of options and their texts, a line each."""
    lines = [line.partition(":") for line in options.splitlines()]
    return [name for name, _, _ in lines], [text.strip() for _, _, text in lines]


def exchanges(conversation: str) -> tuple[str, list[tuple[str, str]]]:
    """The opening words of an interview as lines of JSON, and its questions with their answers."""
    lines = [json.loads(line)["says"] for line in conversation.splitlines()]
    return lines[0], list(zip(lines[1::2], lines[2::2], strict=True))


def words(text: str) -> set[str]:
    """Words of four letters or more."""
    return set(WORD.findall(text.lower()))
