"""Who asks: the contexts of an evaluation of questions, and what each system says there.

Contexts come from threads (`ingest --source askdocs`), from turns at which the expert asks (`label`), or from question
sets. A system is the record's own question, a candidate of a question set, a checkpoint, an endpoint's model, or
another run's replies at the same contexts. Replies are drawn first and kept in drawn/NAME.jsonl (Reply); a cut run goes
on where it was cut.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from askwell import endpoints, jsonl, runs
from askwell.errors import DataError, RecipeError
from askwell.evaluation import sampling
from askwell.llm import stage
from askwell.llm.chat import Request
from askwell.llm.client import Client, Failed
from askwell.llm.store import Store, store_of
from askwell.llm.transport import Transport
from askwell.recipes import Endpoint, EvaluateQuestionsRecipe, System
from askwell.records import Message, QuestionSet, Reply, ReplySet, Thread, Turn
from askwell.texts import prompt_file

T = TypeVar("T")
KINDS = {"ingest": Thread, "label": Turn, "contrast": QuestionSet, "synthesize": QuestionSet}
"""What the runs that can be read hold, by their command."""
Key = tuple[tuple[str, str], ...]


def command_of(path: Path, *, known: Iterable[str]) -> str:
    """The command of a finished run. Raises DataError where it is none of those known."""
    commands = " or ".join(f"`askwell {name}`" for name in known)
    if not path.is_dir() or not runs.finished(path):
        raise DataError(f"{path}: not a finished run; needed is the output of {commands}")
    recipe = json.loads((path / "recipe.json").read_text(encoding="utf-8"))
    if recipe["command"] not in known or (recipe["command"] == "ingest" and recipe.get("source") != "askdocs"):
        made_by = f"askwell {recipe['command']}" + (f" --source {recipe['source']}" if "source" in recipe else "")
        raise DataError(f"{path}: the output of `{made_by}`; needed is that of {commands} (of ingest: askdocs)")
    return recipe["command"]


def contexts(recipe: EvaluateQuestionsRecipe) -> list[ReplySet]:
    """The contexts in the order of the input, each with the question of `human` and those of the candidates."""
    kind = KINDS[command_of(recipe.input, known=KINDS)]
    if recipe.candidates and kind is not QuestionSet:
        raise RecipeError(
            f"candidates {', '.join(recipe.candidates)} are of question sets, and {recipe.input} holds none; leave "
            "them out, or name the output of a command that makes question sets"
        )
    records: Iterable[Any] = jsonl.read(recipe.input / "records.jsonl", kind)
    found = [made for record in records if record.split == recipe.split and (made := set_of(record, recipe))]
    if recipe.limit is not None and len(found) > recipe.limit:
        chosen = set(sorted((row.id for row in found), key=digest)[: recipe.limit])
        found = [row for row in found if row.id in chosen]
    if not found:
        raise DataError(
            f"{recipe.input}: no context with a question in split {recipe.split!r}; choose another --split, or ingest "
            "with a larger share for it"
        )
    return found


def digest(id: str) -> bytes:
    """What an id is drawn by: a larger limit draws the same ones and more."""
    return hashlib.sha256(id.encode()).digest()


def set_of(record: Thread | Turn | QuestionSet, recipe: EvaluateQuestionsRecipe) -> ReplySet | None:
    """A record as a reply set; None for a turn at which nobody asks."""
    if isinstance(record, Turn):
        if record.target is None or record.target.decision == "stop":
            return None
        said = {"human": record.expert_reply}
    elif isinstance(record, Thread):
        said = {"human": record.question}
    else:
        said = {}
        for candidate in record.candidates:
            said.setdefault(candidate.origin, candidate.text)
            said.setdefault(f"{candidate.origin}/{candidate.attribute}", candidate.text)
    wanted = [*(["human"] if recipe.human else []), *recipe.candidates]
    return ReplySet(
        id=record.id,
        group=record.group,
        context=record.context,
        replies={name: said[name] for name in wanted if name in said},
        missing={name: "no such candidate" for name in wanted if name not in said},
    )


class Drawn(NamedTuple):
    """What a system says: its samples at each context, by the context's id, and the reasons where there is none."""

    samples: dict[str, list[str]]
    missing: dict[str, str]


def drawn(
    name: str, recipe: EvaluateQuestionsRecipe, sets: Sequence[ReplySet], run: runs.Run, transport: Transport | None
) -> Drawn:
    """A system's replies, drawn where they are not there yet."""
    system = recipe.systems[name]
    (run.path / "drawn").mkdir(exist_ok=True)
    file = run.path / "drawn" / f"{name}.jsonl"
    if system.run is not None:
        samples = held(system, sets)
        jsonl.write(file, (Reply(turn_id=id, sample=0, text=texts[0]) for id, texts in samples.items()))
        return Drawn(samples, {row.id: f"none in {system.run.name}" for row in sets if row.id not in samples})
    if system.endpoint is not None:
        return asked(name, system, system.endpoint, sets, run, transport)
    return Drawn(sampled(system, recipe, sets, file), {})


def sampled(
    system: System, recipe: EvaluateQuestionsRecipe, sets: Sequence[ReplySet], file: Path
) -> dict[str, list[str]]:
    """Replies of a checkpoint in this process."""
    from askwell.generation import LocalPolicy  # torch

    how = sampling.Drawing(
        input=recipe.input,
        samples=system.samples,
        temperature=system.temperature,
        top_p=system.top_p,
        max_new_tokens=system.max_new_tokens,
        batch=recipe.batch,
        seed=recipe.seed,
    )
    replies = sampling.draw(
        sets,
        lambda: LocalPolicy.load(system.policy, prompt=system.prompt, stop_marker=recipe.stop_marker),
        path=file,
        how=how,
    )
    found: dict[str, list[str]] = {}
    for reply in replies:
        found.setdefault(reply.turn_id, []).append(reply.text)
    return found


def asked(
    name: str, system: System, endpoint: Endpoint, sets: Sequence[ReplySet], run: runs.Run, transport: Transport | None
) -> Drawn:
    """Replies of an endpoint's model; one that fails is missing, with the class of the failure."""
    prompt = [Message(role="system", content=prompt_file(system.prompt).read_text().strip())] if system.prompt else []

    async def work(client: Client, row: ReplySet) -> list[str]:
        messages = tuple({"role": m.role, "content": m.content} for m in (*prompt, *row.context))
        answers = await asyncio.gather(
            *(client.complete(Request(messages, None, sample, "question")) for sample in range(system.samples))
        )
        if wrong := [answer.kind for answer in answers if answer.kind != "ok"]:
            raise Failed(wrong[0])
        return [answer.text for answer in answers]

    outcomes = through(
        endpoint, sets, work, run, name=name, spool=f"drawn/{name}.spool.jsonl", noun="replies", transport=transport
    )
    samples: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for row, outcome in zip(sets, outcomes, strict=True):
        if outcome.state == "ok":
            samples[row.id] = outcome.value
        else:
            missing[row.id] = outcome.state
    rows = (Reply(turn_id=id, sample=i, text=text) for id, texts in samples.items() for i, text in enumerate(texts))
    jsonl.write(run.path / "drawn" / f"{name}.jsonl", rows)
    return Drawn(samples, missing)


def through(
    endpoint: Endpoint,
    items: Sequence[T],
    work: Callable[[Client, T], Awaitable[Any]],
    run: runs.Run,
    *,
    name: str,
    spool: str,
    noun: str,
    transport: Transport | None,
) -> list[stage.Outcome]:
    """Items through an endpoint, spooled as they come; the outcome of each, in order. `name` is who its budget is
    counted for."""
    pinned = endpoints.pinned(endpoint)
    store = Store(store_of(pinned, run.path))
    kept = stage.Spool(run.path / spool)

    async def go() -> None:
        reached = transport or endpoints.transport_of(pinned)
        client = Client(pinned, store, run=f"{run.path.resolve()} {name}", transport=reached)
        await stage.each(items, lambda item: work(client, item), client, kept, total=len(items), noun=noun)
        run.log(endpoint=name, **client.account())

    try:
        asyncio.run(go())
        return list(kept.in_order())
    finally:
        kept.close()
        store.close()


def held(system: System, sets: Sequence[ReplySet]) -> dict[str, list[str]]:
    """What another run holds at the same contexts: the reply under the same id if it stands in the same context, else
    the first in that context."""
    assert system.run is not None
    by_id: dict[str, tuple[Key | None, str]] = {}
    by_context: dict[Key, str] = {}
    for id, context, text in replies_in(system.run, system.named):
        key = None if context is None else key_of(context)
        by_id.setdefault(id, (key, text))
        if key is not None:
            by_context.setdefault(key, text)
    found = {}
    for row in sets:
        key = key_of(row.context)
        same, text = by_id.get(row.id, ((), ""))
        if row.id in by_id and same in (None, key):
            found[row.id] = [text]
        elif key in by_context:
            found[row.id] = [by_context[key]]
    if not found:
        raise DataError(
            f"{system.run}: holds no reply at any of the {len(sets)} contexts; name a run on the same input"
        )
    return found


def replies_in(path: Path, named: str) -> Iterator[tuple[str, tuple[Message, ...] | None, str]]:
    """Id, context (None where the run does not keep it) and text of each reply of a run."""
    command = command_of(path, known=("ingest", "evaluate turns", "evaluate questions"))
    if command == "ingest":
        for thread in jsonl.read(path / "records.jsonl", Thread):
            yield thread.id, thread.context, thread.question
    elif command == "evaluate turns":
        for reply in jsonl.read(path / "replies.jsonl", Reply):
            yield reply.turn_id, None, reply.text
    else:
        for row in jsonl.read(path / "replies.jsonl", ReplySet):
            if named not in row.replies and named not in row.missing:
                known = ", ".join([*row.replies, *row.missing])
                raise RecipeError(f"named {named!r} is no system of {path}; its systems: {known}")
            if named in row.replies:
                yield row.id, row.context, row.replies[named]


def key_of(context: Sequence[Message]) -> Key:
    """A context by what was said in it."""
    return tuple((message.role, message.content) for message in context)


def with_replies(
    sets: Sequence[ReplySet], said: Mapping[str, Mapping[str, str]], missing: Mapping[str, Mapping[str, str]]
) -> list[ReplySet]:
    """The sets with what each system says, {name: {id: text}}, and why where it says nothing."""
    return [
        row.model_copy(
            update={
                "replies": row.replies | {name: texts[row.id] for name, texts in said.items() if row.id in texts},
                "missing": row.missing | {name: why[row.id] for name, why in missing.items() if row.id in why},
            }
        )
        for row in sets
    ]
