"""Conversations to build cases of, and a writer and a judge that say what a script has them say."""

import json
import re

import pytest

from askwell import recipes, runs
from askwell.cli import main
from askwell.errors import DataError
from askwell.labelling import case_building
from askwell.llm.transport import InProcess
from askwell.mock_endpoint import MockEndpoint
from askwell.records import Case

OPTIONS = ("gout", "a sprain", "arthritis", "an infection")
SAID = [
    ("assistant", "What brings you here?"),
    ("user", "Hello there. My big toe hurts since Monday."),
    ("user", "I am 45."),
    ("assistant", "Is it red? It may be gout."),
    ("user", "Yes. It came up overnight."),
    ("assistant", "This is gout. Rest the foot."),
    ("user", "Thanks, my father had gout too."),
]
FACTS = [
    {"message": 2, "quote": "My big toe hurts since Monday.", "fact": "My big toe hurts since Monday."},
    {"message": 3, "quote": "I am 45.", "fact": "I am 45."},
    {"message": 5, "quote": "Yes.", "fact": "The toe is red."},
    {"message": 5, "quote": "It came up overnight.", "fact": "It came up overnight."},
    {"message": 7, "quote": "my father had gout too", "fact": "The father had gout."},
]
TASK = re.compile(r"^Task: (\w+)\.", re.MULTILINE)


def parts_of(body):
    """The task of a prompt, and its fenced texts, JSON lines read."""
    text = body["messages"][1]["content"]
    parts = [part for _, part in re.findall(r"<data (\w+)>\n(.*?)\n</data \1>", text, re.DOTALL)]
    lines = [[json.loads(line) for line in part.splitlines()] if part[0] == "{" else part for part in parts]
    return TASK.findall(text)[-1], lines


def script(**said):
    """A model that answers each task as the script has it, a value or a function of the prompt's parts; else well."""

    def answer(body):
        task, parts = parts_of(body)
        found = said.get(task, well[task])
        value = found(parts) if callable(found) else found
        return value if isinstance(value, str) else json.dumps(value)

    return answer


def verdicts(parts, right=("gout",), plausible=True):
    """The judge of options: those named are right."""
    return {
        "verdicts": [
            {"option": it["option"], "reason": "r", "verdict": "right" if it["text"] in right else "wrong"}
            | {"plausible": plausible or it["text"] in right}
            for it in parts[3]
        ]
    }


def choosing(parts, text="gout"):
    return {"reason": "r", "choice": next(it["option"] for it in parts[3] if it["text"] == text)}


well = {
    "facts": {"facts": FACTS},
    "inquiry": {"reason": "r", "inquiry": "What is wrong with the toe?", "answer": "gout"},
    "distractors": {"reason": "r", "options": list(OPTIONS[1:])},
    "support": lambda parts: {
        "verdicts": [{"fact": it["fact"], "reason": "r", "supported": True} for it in parts[2]],
    },
    "options": verdicts,
    "choose": choosing,
    "revise": lambda parts: {
        "reason": "r",
        "options": [{"option": it["option"], "text": f"revised {it['option']}"} for it in parts[4]],
    },
}


def log(name, said=SAID, **fields):
    return {"id": name, "messages": [{"role": role, "content": text} for role, text in said], **fields}


def ingested(folder, lines, *flags, source="chat"):
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    call = ["ingest", "--source", source, "--input", str(folder / "in.jsonl"), "--output", str(folder / "records")]
    assert main([*call, *flags]) == 0
    return folder / "records"


def build(records, output, answer=None, *, mock=None, **fields):
    """A run: its cases, counts, report and the mock."""
    mock = mock or MockEndpoint(answer or script())
    endpoint = {"model": "mock", "structured": "json_schema", "max_unscored": 1.0, **fields.pop("endpoint", {})}
    values = {"split": "all", **fields}
    recipe = recipes.CasesBuildRecipe(input=records, output=output, endpoint=endpoint, **values)
    with runs.start(recipe, "cases build", inputs=case_building.inputs(recipe)) as run:
        counts = case_building.run(recipe, run, InProcess(mock.send))
        run.finish(counts)
    cases = list(runs.records_of(output, Case, made_by="askwell cases build"))
    return cases, counts, json.loads((output / "report.json").read_text()), mock


def refusal(records, output, answer, **fields):
    """Why a record gave no case."""
    with pytest.raises(DataError, match="no record gave a case"):
        build(records, output, answer, **fields)
    (line,) = map(json.loads, (output / "unscored.jsonl").read_text().splitlines())
    return line["reason"]
