"""Cases, scripted experts and patients, and runs of the stage over mock endpoints."""

import asyncio
import json
import re

from askwell import jsonl, recipes, runs
from askwell.evaluation import interviews as stage
from askwell.interview.talk import Asked, Choice, Said, Verdict, hold
from askwell.llm.transport import InProcess
from askwell.mock_endpoint import MockEndpoint
from askwell.records import Case, Episode

FACTS = ("The pain began two days ago.", "There is no fever.", "The patient takes aspirin daily.")


def case_of(name="c", *, group=None, answer="B", facts=FACTS, options=None, opening="My knee hurts."):
    return Case(
        id=name,
        group=group or name,
        split="test",
        initial_information=opening,
        facts=facts,
        inquiry="What is behind it?",
        options=options or {"A": "gout", "B": "a sprain", "C": "arthritis"},
        answer=answer,
    )


class Script:
    """An expert that says its lines: questions, verdicts (how sure), choices."""

    def __init__(self, questions, *, stops=(), choices=("A",), sure=()):
        self.questions, self.stops, self.choices, self.sure = questions, stops, choices, sure

    async def verdict(self, case, said, meter):
        sure = self.sure[len(said)] if len(said) < len(self.sure) else None
        return Verdict(stop=len(said) in self.stops, sure=sure)

    async def ask(self, case, said, meter):
        if len(said) >= len(self.questions):
            return Asked(None, stop=True)
        return Asked(self.questions[len(said)])

    async def choose(self, case, said, meter):
        await asyncio.sleep(0)
        return Choice(self.choices[min(len(said), len(self.choices) - 1)], 0.5)


class Echo:
    """A patient who says the question back."""

    async def answer(self, case, said, question, meter):
        return Said(question, f"You ask: {question}", (question,))


def held(expert, patient=None, *, case=None, most=4):
    return asyncio.run(hold(case or case_of(), patient or Echo(), expert, most=most))


def parts_of(body):
    """The fenced texts of a prompt."""
    content = body["messages"][-1]["content"]
    return [text for _, text in re.findall(r"<data (\w+)>\n(.*?)\n</data \1>", content, re.DOTALL)]


def name_of(body):
    """The name of the answer that is asked for; empty for plain text."""
    return body.get("response_format", {}).get("json_schema", {}).get("name", "")


def well(body):
    """A model for every role: asks for a fever, then for medicines, is sure after two answers, and then says B."""
    name, parts = name_of(body), parts_of(body)
    if name == "Picked":
        wanted = "fever" if "fever" in parts[1] else "aspirin"
        return json.dumps({"facts": [fact for fact in map(json.loads, parts[0].splitlines()) if wanted in fact]})
    if name == "":
        return ["Do you have a fever?", "Do you take anything?", "Anything else?"][
            min(len(body["messages"]) // 2 - 1, 2)
        ]
    told = len(parts[2].splitlines()) // 2
    if name == "Opinion":
        return json.dumps({"choice": "B" if told >= 2 else "A", "confidence": 0.3 + 0.2 * min(told, 2)})
    words = ("unconfident", "neither", "confident")[min(told, 2)]
    return json.dumps({"confidence": words} if name == "Scale" else {"confidence": 0.45 * min(told, 2)})


def cases_in(folder, cases):
    """A finished run of `askwell cases read` that holds them."""
    recipe = recipes.CasesReadRecipe(input=folder, output=folder / "cases")
    with runs.start(recipe, "cases read") as run:
        jsonl.write(run.records, cases)
        run.finish({})
    return recipe.output


def evaluated(folder, cases, reply=well, *, name="run", mock=None, **fields):
    """A run over the cases with all four roles at one mock endpoint: its episodes, report and counts."""
    mock = mock or MockEndpoint(reply)
    path = folder / "cases"
    if not path.exists():
        cases_in(folder, cases)
    recipe = recipe_of(path, folder / name, **fields)
    with runs.start(recipe, "evaluate interviews", inputs=stage.inputs(recipe)) as run:
        counts = stage.run(recipe, run, {"mock": InProcess(mock.send)})
        run.finish(counts)
    episodes = list(runs.records_of(run.path, Episode, made_by="askwell evaluate interviews"))
    return episodes, stage.load(run.path), counts


def recipe_of(cases, output, **fields):
    model = {"model": "mock", "structured": "json_schema", "max_unscored": 1.0, **fields.pop("endpoint", {})}
    values = {
        "cases": str(cases),
        "output": output,
        "asker": model,
        "decision": model,
        "patient": {"kind": "facts", "endpoint": model},
        "abstention": {"rule": "scale"},
        "most": 5,
        "shuffle": False,
        **fields,
    }
    return recipes.EvaluateInterviewsRecipe.model_validate({k: v for k, v in values.items() if v is not None})
