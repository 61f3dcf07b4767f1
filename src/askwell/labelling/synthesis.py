"""`askwell synthesize`: threads to question sets, ALFA's counterfactual variants with a judge's word on each.

ALFA, sections 4.2 and C.1. Of each question of the Thread records of `askwell ingest`:

1. it is rewritten to one that stands by itself: the original of what follows;
2. it is made better (enhanced) and worse (corrupted) in each attribute and in nothing else;
3. a judge ranks enhanced, original and corrupted of an attribute, blind and in shuffled order (`verification`);
4. each attribute gives three preferences, E-C, E-O and O-C, and whether the judge confirmed them.

All candidates and preferences are written, with `Preference.kept` to filter by: the paper compares filtered with
unfiltered data. A later question keeps its history (911 of the paper's 4,463 training questions lost it). What a check
finds wrong with a variant (`variants`), ties, and calls without a usable answer leave preferences unscored, counted by
reason. A question that could not be rewritten is unscored as a whole and stands in unscored.jsonl.

Writes records.jsonl (QuestionSet), in the order of the input, verdicts.jsonl with the judge's reasons, report.json and
report.md (`labelling.tables`).
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

from askwell import attributes, endpoints, jsonl, runs
from askwell.attributes import Attribute
from askwell.errors import DataError
from askwell.labelling import tables, variants
from askwell.labelling.question_sets import Unscored, question_sets, rulings
from askwell.labelling.tasks import (
    PROMPT,
    VARIED,
    Made,
    Plan,
    Rewritten,
    Variant,
    Varied,
    planned,
    profiles_of,
    ranking,
    requests_of,
    rewriting,
    stand_in,
    varying,
)
from askwell.labelling.verification import Ranking, Verdict, verdict_of
from askwell.llm import estimate, prompts, stage, structured
from askwell.llm.client import Client, Failed, permit
from askwell.llm.store import Store, store_of
from askwell.llm.transport import Transport
from askwell.recipes import Endpoint, SynthesizeRecipe
from askwell.records import Thread

MADE_BY = "askwell ingest"


def inputs(recipe: SynthesizeRecipe) -> list[Path]:
    """Threads, attributes, prompt and profiles. Refuses, before anything is sent, to send elsewhere what was not
    redacted."""
    runs.require(recipe.input, made_by=MADE_BY)
    if runs.counts_of(recipe.input).get("questions") is None:
        raise DataError(f"{recipe.input}: conversations, not threads; ingest a forum with `--source askdocs`")
    attributes.load_all(recipe.attributes)
    redacted = runs.redacted(recipe.input) and recipe.profiles is None
    places = [recipe.input, *map(attributes.file_of, recipe.attributes), prompts.load(PROMPT, "rank").file]
    for endpoint in endpoints_of(recipe):
        permit(endpoint, redacted=redacted, what=recipe.input)
        places += endpoints.inputs(endpoint)
    if recipe.profiles is not None:
        known = profiles_of(recipe.profiles)
        if not any(thread.group in known for thread in threads(recipe)):
            raise DataError(
                f"{recipe.profiles}: no profile is of a group of {recipe.input}; name groups as its records.jsonl does"
            )
        places.append(recipe.profiles)
    return places


def endpoints_of(recipe: SynthesizeRecipe) -> list[Endpoint]:
    """The rewriter's endpoint, and the judge's where that is another."""
    return [recipe.endpoint] if recipe.judge is None else [recipe.endpoint, recipe.judge]


def judged_apart(recipe: SynthesizeRecipe) -> bool:
    """Whether the judge is another model than the rewriter's, which reads each post for itself."""
    served = {(endpoint.base_url, endpoint.model) for endpoint in endpoints_of(recipe)}
    return len(served) > 1


def plan(recipe: SynthesizeRecipe) -> dict[str, object]:
    """Calls, tokens and money that the stage will take: the question as it was asked stands in for its variants."""
    inputs(recipe)
    whole = planned(recipe)
    judge = recipe.judge or recipe.endpoint
    found: dict[str, object] = {}
    calls = 0
    for role, given in (("rewrite", recipe.endpoint), ("vary", recipe.endpoint), ("rank", judge)):
        asked = (
            request
            for thread in threads(recipe)
            for request in requests_of(thread, stand_in(thread, whole), whole)
            if request.role == role
        )
        endpoint = endpoints.pinned(given)
        told = estimate.estimate(endpoint, store_of(endpoint, recipe.output), asked)
        calls += cast(int, told["calls"])
        found |= {f"{role}: {name}": value for name, value in told.items()}
    return {"questions": count_of(recipe), "calls": calls, **found}


def run(recipe: SynthesizeRecipe, run: runs.Run, transport: Transport | None = None) -> dict[str, object]:
    """Make every question set; returns counts of questions by state, of candidates and preferences."""
    whole = planned(recipe)
    spool = stage.Spool(run.path / "spool.jsonl", again=lacking)
    paths = dict.fromkeys(store_of(endpoint, recipe.output) for endpoint in endpoints_of(recipe))
    stores = {path: Store(path) for path in paths}
    try:
        states, accounts = asyncio.run(synthesized(whole, stores, spool, transport))
        check(spool, recipe)
        tally = tables.Tally(tuple(each.name for each in whole.attributes), apart=judged_apart(recipe))
        unscored: list[Unscored] = []
        written = jsonl.write(run.records, question_sets(answered(recipe, spool), whole, tally, unscored))
        jsonl.write(run.path / "unscored.jsonl", unscored)
        jsonl.write(run.path / "verdicts.jsonl", rulings(answered(recipe, spool)))
    finally:
        spool.close()
        for store in stores.values():
            store.close()
    if not written:
        raise DataError(f"{recipe.input}: no question could be rewritten: {dict(states)}")
    figures = tables.report(tally)
    runs.write_json(run.report, figures)
    runs.write_text(run.path / "report.md", tables.markdown(figures, accounts))
    spool.path.unlink()
    return {"question_sets": written, "questions": dict(states), **tables.counts(figures), **accounts}


async def synthesized(
    whole: Plan, stores: Mapping[Path, Store], spool: stage.Spool, transport: Transport | None
) -> tuple[dict[str, int], dict[str, Any]]:
    """Every question through the endpoints; returns their number by state, and the accounts."""
    recipe = whole.recipe
    clients = []
    for name, given in zip(("", " judge"), endpoints_of(recipe), strict=False):
        endpoint = endpoints.pinned(given)
        how = transport or endpoints.transport_of(endpoint)
        store = stores[store_of(given, recipe.output)]
        clients.append(Client(endpoint, store, run=f"{recipe.output.resolve()}{name}", transport=how))
    rewriter, judge = clients[0], clients[-1]
    # A few questions at a time, each with all of its calls, so that a server still holds a post when it is needed.
    room = asyncio.Semaphore(max(2, rewriter.endpoint.concurrency // 6))

    async def work(thread: Thread) -> dict[str, Any]:
        async with room:
            return (await made(thread, whole, rewriter, judge)).model_dump(exclude_defaults=True)

    async with AsyncExitStack() as open_clients:
        if judge is not rewriter:
            await open_clients.enter_async_context(judge)
        states = await stage.each(threads(recipe), work, rewriter, spool, total=count_of(recipe), noun="questions")
    if judge is rewriter:
        return states, rewriter.account()
    return states, {"rewriter": rewriter.account(), "judge": judge.account()}


async def made(thread: Thread, whole: Plan, rewriter: Client, judge: Client) -> Made:
    """All that comes of a question. Raises Failed where it cannot be rewritten or a budget is used up."""
    asked = await structured.ask(rewriter, rewriting(thread, whole), Rewritten, role="rewrite")
    original = variants.tidied(asked.question)
    if fault := variants.fault_of(original, thread.question, origin="rewritten", attribute=""):
        raise Failed("unreadable", f"the rewritten question: {fault}", text=asked.question)

    async def vary(attribute: Attribute, origin: Varied) -> Variant:
        try:
            messages = varying(thread, original, attribute, origin, whole)
            answer = await structured.ask(rewriter, messages, Rewritten, role="vary")
        except Failed as failed:
            return Variant(failure=survivable(failed), said=failed.text)
        return Variant(text=variants.tidied(answer.question))

    async def rank(attribute: Attribute, found: Mapping[Varied, Variant]) -> Verdict | None:
        if (asked := ranking(thread, original, attribute, found, whole)) is None:
            return None
        order, messages = asked
        try:
            return verdict_of(await structured.ask(judge, messages, Ranking, role="rank"), order)
        except Failed as failed:
            return Verdict(order=order, failure=survivable(failed), reason=failed.text)

    async def along(attribute: Attribute) -> tuple[dict[Varied, Variant], Verdict | None]:
        found = dict(zip(VARIED, await asyncio.gather(*(vary(attribute, origin) for origin in VARIED)), strict=True))
        return found, await rank(attribute, found)

    each = await asyncio.gather(*map(along, whole.attributes))
    names = [attribute.name for attribute in whole.attributes]
    return Made(
        original=original,
        made={name: found for name, (found, _) in zip(names, each, strict=True)},
        verdicts={name: verdict for name, (_, verdict) in zip(names, each, strict=True)},
    )


def survivable(failed: Failed) -> str:
    """The class of a failure that leaves the rest of a question as it is; a budget's end does not."""
    if failed.kind == "over_budget":
        raise failed
    return failed.kind


def lacking(value: Any) -> bool:
    """Whether some variant or verdict of a question did not come about. A run that goes on makes such a question again:
    what was answered is stored, so that only the rest is asked."""
    made = Made.model_validate(value)
    parts = [*(each for found in made.made.values() for each in found.values()), *filter(None, made.verdicts.values())]
    return any(part.failure for part in parts)


def check(spool: stage.Spool, recipe: SynthesizeRecipe) -> None:
    """Raise EndpointError where too many variants or verdicts did not come about."""
    parts: dict[str, Counter[str]] = {"variants": Counter(), "verdicts": Counter()}
    for outcome in spool.in_order():
        if outcome.state == "ok":
            made = Made.model_validate(outcome.value)
            parts["variants"].update(each.failure or "ok" for found in made.made.values() for each in found.values())
            parts["verdicts"].update(each.failure or "ok" for each in made.verdicts.values() if each)
    stage.check_share(parts["variants"], recipe.endpoint.max_unscored, "variants", final=True)
    name, judge = ("endpoint", recipe.endpoint) if recipe.judge is None else ("judge", recipe.judge)
    stage.check_share(parts["verdicts"], judge.max_unscored, "verdicts", final=True, endpoint=name)


def threads(recipe: SynthesizeRecipe) -> Iterator[Thread]:
    """The questions, in the order of the input."""
    return itertools.islice(runs.records_of(recipe.input, Thread, made_by=MADE_BY), recipe.limit)


def answered(recipe: SynthesizeRecipe, spool: stage.Spool) -> Iterator[tuple[Thread, stage.Outcome]]:
    """The questions with what came of them."""
    return zip(threads(recipe), spool.in_order(), strict=True)


def count_of(recipe: SynthesizeRecipe) -> int:
    """How many there are."""
    held = int(runs.counts_of(recipe.input)["questions"])
    return held if recipe.limit is None else min(held, recipe.limit)
