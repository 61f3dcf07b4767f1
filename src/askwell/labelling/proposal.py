"""`askwell attributes propose`: what makes a question good in another domain, proposed for a person to edit.

ALFA, section 3, takes its attributes from the literature on medical interviews. Elsewhere an endpoint's model reads
what the questions are for and examples of them, and proposes attributes with definitions, scales and instructions.
Writes attributes/NAME.toml, each as `attributes.load` takes it (`--attributes RUN/attributes/NAME.toml`), and
report.json with what was proposed and could not be used, and why. A model's proposal is a draft: read it.
"""

import asyncio
import json
import re
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel, ValidationError

from askwell import attributes, endpoints, runs
from askwell.attributes import Attribute
from askwell.errors import DataError
from askwell.llm import estimate, prompts, structured
from askwell.llm.chat import Request
from askwell.llm.client import Client, Failed, permit
from askwell.llm.store import Store, store_of
from askwell.llm.transport import Transport
from askwell.recipes import ProposeRecipe

PROMPT = "propose"


class Proposed(BaseModel):
    """An attribute as the model gives it."""

    name: str
    title: str
    group: str
    definition: str
    scale: list[str]
    tips: list[str]
    more: str
    less: str


class Proposal(BaseModel):
    """What the model answers."""

    attributes: list[Proposed]


def inputs(recipe: ProposeRecipe) -> list[Path]:
    """Examples and prompt. Refuses to send examples to another machine unless the recipe names it."""
    examples(recipe)
    permit(recipe.endpoint, redacted=False, what=recipe.examples)
    return [recipe.examples, prompts.load(PROMPT).file, *endpoints.inputs(recipe.endpoint)]


def plan(recipe: ProposeRecipe) -> dict[str, object]:
    """The one call that it takes."""
    inputs(recipe)
    endpoint = endpoints.pinned(recipe.endpoint)
    request = Request(asked(recipe), Proposal, role=PROMPT)
    found = estimate.estimate(endpoint, store_of(endpoint, recipe.output), [request])
    return {"examples": len(examples(recipe)), **found}


def run(recipe: ProposeRecipe, run: runs.Run, transport: Transport | None = None) -> dict[str, object]:
    """Write attributes/ and report.json."""
    endpoint = endpoints.pinned(recipe.endpoint)
    store = Store(store_of(endpoint, recipe.output))
    try:
        client = Client(
            endpoint,
            store,
            run=str(recipe.output.resolve()),
            transport=transport or endpoints.transport_of(endpoint),
        )
        proposal = asyncio.run(answer(client, recipe))
    finally:
        store.close()
    kept, refused = usable(proposal)
    if not kept:
        raise DataError(
            f"{endpoint.model}: proposed no attribute that can be used: {'; '.join(refused) or 'none at all'}"
        )
    folder = run.path / "attributes"
    folder.mkdir(exist_ok=True)
    for attribute in kept:
        note = f"# Proposed by {json.dumps(endpoint.model)}: a draft to edit.\n"
        runs.write_text(folder / f"{attribute.name}.toml", note + attributes.written(attribute))
    runs.write_json(run.report, {"proposed": [attribute.model_dump() for attribute in kept], "refused": refused})
    return {"attributes": ", ".join(each.name for each in kept), "refused": len(refused), **client.account()}


async def answer(client: Client, recipe: ProposeRecipe) -> Proposal:
    """The model's proposal. Raises DataError where there is none that can be read."""
    async with client:
        try:
            return await structured.ask(client, asked(recipe), Proposal, role=PROMPT)
        except Failed as failed:
            raise DataError(f"{client.name}: no proposal: {failed}; {failed.text[:200]!r}") from None


def asked(recipe: ProposeRecipe) -> Any:
    """The messages: the goal, and examples drawn by the recipe's seed, in their order."""
    lines = examples(recipe)
    chosen = sorted(Random(recipe.seed).sample(range(len(lines)), min(recipe.shown, len(lines))))
    told = "\n".join(json.dumps(lines[place], ensure_ascii=False) for place in chosen)
    return prompts.load(PROMPT).fill(
        goal=prompts.fenced(recipe.goal), examples=prompts.fenced(told), count=str(recipe.count)
    )


def examples(recipe: ProposeRecipe) -> list[str]:
    """The questions in the file. Raises DataError where there are none."""
    try:
        lines = recipe.examples.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{recipe.examples}: cannot be read as UTF-8 text: {error}; give one question a line") from None
    found = [text_in(line, f"{recipe.examples}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise DataError(f"{recipe.examples}: holds no example; give one question a line")
    return found


def text_in(line: str, where: str) -> str:
    """A line's question: the line, or what its JSON calls `question` or `text`."""
    if not line.lstrip().startswith("{"):
        return line.strip()
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: begins as JSON and is none: {error}; write the question alone, or mend it") from None
    text = next((fields[key] for key in ("question", "text") if isinstance(fields.get(key), str)), "")
    if not text.strip():
        raise DataError(f"{where}: neither 'question' nor 'text' holds words; name the question so")
    return text.strip()


def usable(proposal: Proposal) -> tuple[list[Attribute], list[str]]:
    """The attributes that are whole, and what is wrong with the others."""
    kept: dict[str, Attribute] = {}
    refused: list[str] = []
    for proposed in proposal.attributes:
        name = re.sub(r"[^a-z0-9]+", "_", proposed.name.lower()).strip("_")
        try:
            attribute = Attribute.model_validate({**proposed.model_dump(), "name": name})
        except ValidationError as error:
            refused.append(f"{proposed.name!r}: {'; '.join(attributes.faults(error))}")
            continue
        if name in kept:
            refused.append(f"{proposed.name!r}: proposed twice")
        else:
            kept[name] = attribute
    return list(kept.values()), refused
