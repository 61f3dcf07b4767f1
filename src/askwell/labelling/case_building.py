"""`askwell cases build`: conversations or threads to cases that can be interviewed, as MediQ-AskDocs was made.

ALFA, appendix E. Of each conversation, or thread with all its questions and answers:

1. what the person says at first is the initial information, word for word; the published one was made up;
2. a writer lists the facts that the person tells. One stands where its quote is in the message, and it is a sentence of
   it or a judge finds it supported by the record; one that holds the answer is left out;
3. the writer puts the inquiry with its answer, by the outcome where that is known, and three wrong options;
4. the judge, who sees the options in random order and is not told which is meant to be right, says of each whether it
   is right, wrong or open, and whether anybody would consider it. Options at fault are written anew and judged again;
   what is at fault then gives no case (the published verdicts filter nothing);
5. the judge chooses an option knowing the facts alone: where that is another one, no interview can find the answer;
6. the answer's place is drawn by the seed, and a person's verdicts are merged in where there are any (`case_reviews`).

Writes records.jsonl (Case), drafts.jsonl with every draft and what was found wrong with it, unscored.jsonl with the
records that gave no case and why, review.csv and review.txt for people to fill in, report.json and report.md. The
record of a case is its facts: what was said holds the expert's conclusion.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any, cast

from pydantic import BaseModel

from askwell import endpoints, jsonl, runs
from askwell.errors import DataError
from askwell.labelling import case_report, case_reviews
from askwell.labelling.case_checks import fact_fault, judged_faults, names, verbatim, wording_faults
from askwell.labelling.case_sources import MADE_BY, conversations, opening_of
from askwell.labelling.case_tasks import (
    JUDGE,
    LETTERS,
    WRITER,
    Chosen,
    Distractors,
    Draft,
    Fact,
    Facts,
    Fault,
    Inquiry,
    Judgement,
    Revised,
    Support,
    facts_alone,
    finding_facts,
    judging,
    misleading,
    posing,
    requests_of,
    revising,
    supporting,
)
from askwell.labelling.extraction import squeezed
from askwell.labelling.question_sets import Unscored
from askwell.llm import estimate, prompts, stage, structured
from askwell.llm.client import Client, permit
from askwell.llm.store import Store, store_of
from askwell.llm.transport import Transport
from askwell.recipes import CasesBuildRecipe, Endpoint
from askwell.records import Case, Conversation, Record

ROLES = ("facts", "inquiry", "distractors", "revise", "support", "options", "choose")
OF_JUDGE = ("support", "options", "choose")


class Try(BaseModel):
    """A draft, and what was found wrong with it."""

    draft: Draft
    faults: list[Fault] = []


class Made(BaseModel):
    """All that came of a record: facts with those left out by reason, drafts, and why there is no case, if so."""

    facts: list[Fact] = []
    left_out: dict[str, int] = {}
    tries: list[Try] = []
    refused: str = ""
    detail: str = ""


class Drafted(Record):
    """One line of drafts.jsonl: the options of a draft, the one that is meant to be right first, and their faults."""

    id: str
    inquiry: str
    options: tuple[str, ...]
    faults: dict[str, str] = {}  # noqa: RUF012  pydantic copies a default
    """By the option's text: kind and reason."""


def inputs(recipe: CasesBuildRecipe) -> list[Path]:
    """The run that is read, prompts, verdicts. Refuses, before anything is sent, to send elsewhere what was not
    redacted."""
    runs.require(recipe.input, made_by=MADE_BY)
    places = [recipe.input, *(prompts.load(*task).file for task in ((WRITER, "facts"), (JUDGE, "options")))]
    for endpoint in endpoints_of(recipe):
        permit(endpoint, redacted=runs.redacted(recipe.input), what=recipe.input)
        places += endpoints.inputs(endpoint)
    if recipe.review is not None:
        case_reviews.readings(recipe.review)
        places.append(recipe.review)
    return places


def endpoints_of(recipe: CasesBuildRecipe) -> list[Endpoint]:
    """The writer's endpoint, and the judge's where that is another."""
    return [recipe.endpoint] if recipe.judge is None else [recipe.endpoint, recipe.judge]


def plan(recipe: CasesBuildRecipe) -> dict[str, object]:
    """Calls, tokens and money that the stage will take at most: as if every record had facts to verify and options to
    write anew."""
    inputs(recipe)
    chosen = conversations(recipe)
    found: dict[str, object] = {}
    calls = 0
    for role in ROLES:
        endpoint = endpoints.pinned((recipe.judge or recipe.endpoint) if role in OF_JUDGE else recipe.endpoint)
        asked = (
            request
            for conversation in chosen
            for request in requests_of(conversation, revisions=recipe.revisions)
            if request.role == role and (recipe.answerable or role != "choose")
        )
        told = estimate.estimate(endpoint, store_of(endpoint, recipe.output), asked)
        calls += cast(int, told["calls"])
        found |= {f"{role}: {name}": value for name, value in told.items()}
    return {"records": len(chosen), "calls at most": calls, **found}


def run(recipe: CasesBuildRecipe, run: runs.Run, transport: Transport | None = None) -> dict[str, object]:
    """Build every case, merge what people said; returns counts of records by state, and the report's."""
    chosen = conversations(recipe)
    spool = stage.Spool(run.path / "spool.jsonl")
    stores = {
        path: Store(path) for path in dict.fromkeys(store_of(each, recipe.output) for each in endpoints_of(recipe))
    }
    try:
        states, accounts = asyncio.run(build(recipe, chosen, stores, spool, transport))
        outcomes = list(spool.in_order())
    finally:
        spool.close()
        for store in stores.values():
            store.close()
    counts = written(recipe, run, chosen, outcomes, accounts)
    spool.path.unlink()
    return {**counts, "states": dict(states), **accounts}


async def build(
    recipe: CasesBuildRecipe,
    chosen: Sequence[Conversation],
    stores: Mapping[Path, Store],
    spool: stage.Spool,
    transport: Transport | None,
) -> tuple[dict[str, int], dict[str, Any]]:
    """Every record through the endpoints; returns their number by state, and the accounts."""
    clients = []
    for name, given in zip(("", " judge"), endpoints_of(recipe), strict=False):
        endpoint = endpoints.pinned(given)
        how = transport or endpoints.transport_of(endpoint)
        store = stores[store_of(given, recipe.output)]
        clients.append(Client(endpoint, store, run=f"{recipe.output.resolve()}{name}", transport=how))
    writer, judge = clients[0], clients[-1]

    async def work(conversation: Conversation) -> dict[str, Any]:
        return (await made(conversation, recipe, writer, judge)).model_dump(exclude_defaults=True)

    async with AsyncExitStack() as open_clients:
        if judge is not writer:
            await open_clients.enter_async_context(judge)
        states = await stage.each(chosen, work, writer, spool, total=len(chosen), noun="records")
    if judge is writer:
        return states, writer.account()
    return states, {"writer": writer.account(), "judge": judge.account()}


async def made(conversation: Conversation, recipe: CasesBuildRecipe, writer: Client, judge: Client) -> Made:
    """All that comes of a record. Raises Failed where a call has no usable answer."""
    listed, asked = await asyncio.gather(
        structured.ask(writer, finding_facts(conversation), Facts, role="facts"),
        structured.ask(writer, posing(conversation), Inquiry, role="inquiry"),
    )
    draft = Draft(inquiry=asked.inquiry.strip(), options=(asked.answer.strip(),))
    facts, left_out = await supported(listed.facts, conversation, judge)
    found = Made(facts=facts, left_out=left_out)
    opening = opening_of(conversation, recipe.opening)
    if refused(found, draft, opening):
        return found
    wrong = await structured.ask(writer, misleading(conversation, draft), Distractors, role="distractors")
    draft = Draft(inquiry=draft.inquiry, options=(draft.answer, *(text.strip() for text in wrong.options)))
    for number in range(recipe.revisions + 1):
        if refused(found, draft, opening):
            return found
        faults = wording_faults(draft)
        if not faults:
            shown = judging(conversation, draft, seed=f"{recipe.seed}/{conversation.id}/{number}")
            answered = await structured.ask(judge, shown.messages, Judgement, role="options", sample=number)
            faults = judged_faults(answered, shown.order)
        found.tries.append(Try(draft=draft, faults=faults))
        if not faults:
            break
        if number < recipe.revisions:
            draft = await revised(conversation, draft, faults, writer, sample=number)
    if faults := found.tries[-1].faults:
        found.refused, found.detail = faults[0].kind, f"{draft.options[faults[0].option]}: {faults[0].words}"
    elif recipe.answerable:
        known = facts_alone(conversation, opening, [fact.fact for fact in told(facts, draft.answer)])
        shown = judging(known, draft, seed=f"{recipe.seed}/{conversation.id}", task="choose")
        answer = await structured.ask(judge, shown.messages, Chosen, role="choose")
        if (chosen := shown.order[LETTERS.index(answer.choice)]) != 0:
            found.refused, found.detail = "facts point elsewhere", f"{draft.options[chosen]}: {answer.reason}"
    return found


async def supported(
    listed: Sequence[Fact], conversation: Conversation, judge: Client
) -> tuple[list[Fact], dict[str, int]]:
    """The facts that the record supports, each once, and how many do not stand, by reason."""
    left_out: Counter[str] = Counter()
    sound: dict[str, Fact] = {}
    for fact in listed:
        if fault := fact_fault(fact, conversation.messages):
            left_out[fault] += 1
        elif sound.setdefault(squeezed(fact.fact), fact) is not fact:
            left_out["told before"] += 1
    facts = [fact.model_copy(update={"fact": " ".join(fact.fact.split())}) for fact in sound.values()]
    doubtful = [fact for fact in facts if not verbatim(fact, conversation.messages)]
    if not doubtful:
        return facts, dict(left_out)
    answer = await structured.ask(judge, supporting(conversation, doubtful), Support, role="support")
    verdicts = {verdict.fact: verdict.supported for verdict in answer.verdicts}
    for number, fact in enumerate(doubtful, start=1):
        if not verdicts.get(number):
            facts.remove(fact)
            left_out["not supported by the record" if number in verdicts else "not judged"] += 1
    return facts, dict(sorted(left_out.items()))


def refused(found: Made, draft: Draft, opening: str) -> bool:
    """Whether there can be no case, whatever becomes of the wrong options; says in `found` why. An inquiry may name the
    answer only beside a wrong option, as in "gout or arthritis?"."""
    if not draft.inquiry or not draft.answer:
        found.refused, found.detail = "no inquiry", f"{draft.inquiry!r}, {draft.answer!r}"
    elif names(opening, draft.answer):
        found.refused, found.detail = "given away by the first words", draft.answer
    elif draft.wrong and names(draft.inquiry, draft.answer) and not any(names(draft.inquiry, it) for it in draft.wrong):
        found.refused, found.detail = "given away by the inquiry", draft.answer
    elif all(squeezed(fact.quote) in squeezed(opening) for fact in told(found.facts, draft.answer)):
        found.refused, found.detail = "nothing to ask", f"{len(found.facts)} facts, none beyond the first words"
    return bool(found.refused)


def told(facts: Sequence[Fact], answer: str) -> list[Fact]:
    """The facts that do not hold the answer."""
    return [fact for fact in facts if not names(fact.fact, answer)]


async def revised(
    conversation: Conversation, draft: Draft, faults: Sequence[Fault], writer: Client, *, sample: int
) -> Draft:
    """The draft with the options at fault written anew; what the writer changes besides stays as it was."""
    answer = await structured.ask(writer, revising(conversation, draft, faults), Revised, role="revise", sample=sample)
    at_fault = {fault.option for fault in faults}
    texts = {each.option - 1: each.text.strip() for each in answer.options if each.option - 1 in at_fault}
    return Draft(
        inquiry=draft.inquiry, options=tuple(texts.get(place, text) for place, text in enumerate(draft.options))
    )


def written(
    recipe: CasesBuildRecipe,
    run: runs.Run,
    chosen: Sequence[Conversation],
    outcomes: Sequence[stage.Outcome],
    accounts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write everything; returns the counts."""
    cases: dict[str, Case] = {}
    fates: dict[str, case_report.Fate] = {}
    unscored: list[Unscored] = []
    drafts: list[Drafted] = []
    for conversation, outcome in zip(chosen, outcomes, strict=True):
        name, found = conversation.id, Made()
        if outcome.state == "ok":
            found = Made.model_validate(outcome.value)
            reason, detail, text = found.refused, found.detail, ""
        else:
            reason, detail, text = outcome.state, outcome.value["detail"], outcome.value["text"]
        if reason:
            unscored.append(Unscored(id=name, reason=reason, detail=detail, text=text))
        else:
            cases[name], found = case_of(conversation, found, recipe)
        drafts += drafted(name, found)
        kinds = [fault.kind for each in found.tries for fault in each.faults]
        fates[name] = case_report.Fate(reason, found.left_out, kinds, max(0, len(found.tries) - 1))
    runs.write_text(run.path / "review.csv", case_reviews.sheet((c, cases[c.id]) for c in chosen if c.id in cases))
    runs.write_text(run.path / "review.txt", case_reviews.INSTRUCTIONS)
    review = None
    if recipe.review is not None:
        cases, removed, review = case_reviews.merged(cases, case_reviews.readings(recipe.review), seed=recipe.seed)
        for name, reason in removed.items():
            fates[name] = fates[name]._replace(unscored=reason)
            unscored.append(Unscored(id=name, reason=reason, detail="", text=""))
    jsonl.write(run.path / "unscored.jsonl", unscored)
    jsonl.write(run.path / "drafts.jsonl", drafts)
    if not cases:
        why = dict(Counter(fate.unscored for fate in fates.values()).most_common())
        raise DataError(f"{recipe.input}: no record gave a case: {why}; unscored.jsonl in {run.path} says more")
    report = case_report.build(list(fates.values()), list(cases.values()), review, seed=recipe.seed)
    jsonl.write(run.records, cases.values())
    runs.write_json(run.report, report)
    runs.write_text(run.path / "report.md", case_report.markdown(report, accounts))
    return {
        name: report[name] for name in ("records", "cases", "groups", "facts", "unscored", "review") if name in report
    }


def case_of(conversation: Conversation, found: Made, recipe: CasesBuildRecipe) -> tuple[Case, Made]:
    """The case, and what was found less the facts that hold its answer."""
    draft = found.tries[-1].draft
    facts = told(found.facts, draft.answer)
    if holding := len(found.facts) - len(facts):
        found = found.model_copy(update={"left_out": {**found.left_out, "holds the answer": holding}})
    order = Random(f"places {recipe.seed} {conversation.id}").sample(range(len(draft.options)), len(draft.options))
    case = Case(
        id=conversation.id,
        group=conversation.group,
        split=conversation.split,
        initial_information=opening_of(conversation, recipe.opening),
        facts=tuple(fact.fact for fact in facts),
        inquiry=draft.inquiry,
        options={letter: draft.options[place] for letter, place in zip(LETTERS, order, strict=True)},
        answer=LETTERS[order.index(0)],
        redacted=conversation.redacted,
    )
    return case, found


def drafted(name: str, found: Made) -> Iterator[Drafted]:
    """The drafts of a record as drafts.jsonl has them."""
    for each in found.tries:
        faults = {each.draft.options[fault.option]: f"{fault.kind}: {fault.words}" for fault in each.faults}
        yield Drafted(id=name, inquiry=each.draft.inquiry, options=each.draft.options, faults=faults)
