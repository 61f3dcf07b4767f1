"""What the simulated clinic costs: CPU time of one core for logs, interviews, and the roles of a language model.

    python benchmarks/clinic.py [--visits 1000] [--visitors 100]

Logs: visits of mixed skill. Interviews: the reference asker and a random one, twelve questions at most. Roles: facts of
whole dialogues, and grades of six replies to each of up to six turns, a third of them garbled as a small model does. A
figure is the best of three runs; loading the clinic is left out. The last line is JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from random import Random as Draw
from types import SimpleNamespace
from typing import Any

from askwell import recipes
from askwell.clinic import language, logs
from askwell.clinic.knowledge import LEVELS, World, load
from askwell.clinic.language import Oracle
from askwell.clinic.reasoning import Asker, Random, Reference
from askwell.clinic.roles import Roles
from askwell.grading.judge import shown
from askwell.interview.clinic import ClinicPatient, ExactDecisionMaker, SpeakingAsker, visitors
from askwell.interview.loop import interviews
from askwell.labelling import extraction
from askwell.llm import prompts
from askwell.records import Conversation, Message


def best(work: Callable[[], int]) -> float:
    """CPU seconds an item: the best of three runs."""
    found = []
    for _ in range(3):
        start = time.process_time()
        count = work()
        found.append((time.process_time() - start) / count)
    return min(found)


def visits(world: World, count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield logs.visit(world, 0, number, [*logs.SKILLS][number % len(logs.SKILLS)])


def written(world: World, count: int) -> int:
    """Visits as JSON."""
    return sum(bool(json.dumps(visit, ensure_ascii=False)) for visit in visits(world, count))


def held(world: World, count: int, asker: Asker) -> int:
    """Interviews, everything that they need included."""
    oracle, people = Oracle(world), visitors(world, count, seed=0)
    patients = [ClinicPatient(world, oracle, visitor) for visitor in people]
    speaker, maker = SpeakingAsker(world, oracle, asker), ExactDecisionMaker(world, oracle)
    return len(interviews([visitor.case for visitor in people], patients, speaker, maker, most=12))


def said(world: World, draw: Draw) -> str:
    """What a policy might ask."""
    text = language.ask(world, draw.choice(world.finding_ids), draw, level=draw.choice(LEVELS))
    if draw.random() < 1 / 3:
        words, other = text.split(), language.ask(world, draw.choice(world.finding_ids), draw).split()
        words[draw.randrange(len(words))] = draw.choice(other)
        text = " ".join(words)
    return text


def requests(world: World, count: int) -> dict[str, list[dict[str, Any]]]:
    """The bodies that labelling and a judge of rollouts would send."""
    draw, prompt, fact = Draw(0), prompts.load("grade"), Roles(world).fact
    recipe: Any = SimpleNamespace(extraction="dialogue", domain=recipes.LabelRecipe.model_fields["domain"].default)
    found: dict[str, list[dict[str, Any]]] = {"extract_dialogue": [], "grade": []}
    for visit in visits(world, count):
        messages = tuple(Message(role=one["role"], content=one["content"]) for one in visit["messages"])
        whole = Conversation(id=visit["id"], group=visit["id"], split="train", source="chat", messages=messages)
        found["extract_dialogue"].append({"messages": extraction.questions(whole, recipe)[0]})
        for at in [i for i, one in enumerate(messages) if one.role == "assistant" and i][:6]:
            wanted = "\n".join(json.dumps(fact(draw.choice(world.finding_ids), draw.random() < 0.5)) for _ in range(3))
            before = prompts.fenced("\n".join(map(shown, messages[:at])))
            for _ in range(6):
                reply = prompts.fenced(said(world, draw))
                filled = prompt.fill(facts=prompts.fenced(wanted), conversation=before, reply=reply)
                found["grade"].append({"messages": filled})
    return found


def answered(world: World, bodies: list[dict[str, Any]]) -> int:
    roles = Roles(world)
    return sum(bool(roles.answer(body)) for body in bodies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--visits", type=int, default=1000)
    parser.add_argument("--visitors", type=int, default=100)
    arguments = parser.parse_args()
    found: dict[str, float] = {}
    for systems in ((), ("respiratory",)):
        world, name = load(systems=systems), systems[0] if systems else "whole"
        found[f"{name}: a conversation of logs"] = best(lambda world=world: written(world, arguments.visits))
        for kind, asker in (("reference", Reference(0.01)), ("random", Random(0))):
            work = lambda world=world, asker=asker: held(world, arguments.visitors, asker)  # noqa: E731
            found[f"{name}: an interview, {kind}"] = best(work)
    world = load()
    for role, bodies in requests(world, arguments.visits // 4).items():
        found[f"whole: an answer, {role}"] = best(lambda bodies=bodies: answered(world, bodies))
    for name, seconds in found.items():
        print(f"{name:42s} {1000 * seconds:8.3f} ms, {1 / seconds:8.0f} a second")
    print(json.dumps({name: round(1000 * seconds, 4) for name, seconds in found.items()}))


if __name__ == "__main__":
    main()
