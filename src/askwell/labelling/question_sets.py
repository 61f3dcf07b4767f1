"""What a rewriter and a judge said of a question, as a question set."""

from collections.abc import Iterable, Iterator

from askwell.labelling import tables, variants
from askwell.labelling.tasks import Made, Plan, context_of, fault_of, requests_of
from askwell.labelling.verification import DIRECTIONS, Verdict, verified
from askwell.llm.stage import Outcome
from askwell.records import Candidate, Direction, Preference, QuestionSet, Record, Thread


class Unscored(Record):
    """One line of unscored.jsonl: a question that could not be rewritten, and why."""

    id: str
    reason: str
    detail: str
    text: str


class Ruling(Record):
    """One line of verdicts.jsonl: how a judge ranked the wordings of a question, by origin, best first."""

    id: str
    attribute: str
    order: tuple[str, ...]
    ranking: tuple[tuple[str, ...], ...]
    reason: str


def question_sets(
    answered: Iterable[tuple[Thread, Outcome]], whole: Plan, tally: tables.Tally, unscored: list[Unscored]
) -> Iterator[QuestionSet]:
    """The question set of every question that was rewritten; adds to the tally, and what was not to `unscored`."""
    group, asked = "", []
    for thread, outcome in answered:
        if outcome.state != "ok":
            why = outcome.value
            unscored.append(Unscored(id=thread.id, reason=outcome.state, detail=why["detail"], text=why["text"]))
            continue
        made = Made.model_validate(outcome.value)
        if thread.group != group:
            tally.asked(asked)
            group, asked = thread.group, []
        asked += requests_of(thread, made, whole)
        record = question_set(thread, made, whole)
        failures = {name: {origin: it.failure for origin, it in found.items()} for name, found in made.made.items()}
        tally.add(record, failures)
        yield record
    tally.asked(asked)


def rulings(answered: Iterable[tuple[Thread, Outcome]]) -> Iterator[Ruling]:
    """All verdicts."""
    for thread, outcome in answered:
        if outcome.state == "ok":
            for name, verdict in Made.model_validate(outcome.value).verdicts.items():
                if verdict is not None:
                    yield ruling(thread.id, name, verdict)


def ruling(id: str, attribute: str, verdict: Verdict) -> Ruling:
    """A verdict as verdicts.jsonl has it."""
    placed = list(zip(verdict.order, verdict.places, strict=False))  # without places: there is none
    tiers = sorted(set(verdict.places))
    ranking = tuple(tuple(name for name, place in placed if place == tier) for tier in tiers)
    reason = verdict.failure or verdict.reason
    return Ruling(id=id, attribute=attribute, order=verdict.order, ranking=ranking, reason=reason)


def question_set(thread: Thread, made: Made, whole: Plan) -> QuestionSet:
    """Candidates and preferences of a question: as it was asked, as it was rewritten, then variants by attribute."""
    candidates = [
        Candidate(text=thread.question, origin="human"),
        Candidate(text=made.original, origin="rewritten"),
    ]
    preferences: list[Preference] = []
    for attribute in (each.name for each in whole.attributes):
        places = {"original": 1}
        for origin, variant in made.made[attribute].items():
            if variant.text is not None:
                places[origin] = len(candidates)
                fault = fault_of(thread, made.original, attribute, origin, variant.text, whole)
                candidates.append(Candidate(text=variant.text, origin=origin, attribute=attribute, fault=fault))
        for direction, (better, worse) in DIRECTIONS.items():
            if better in places and worse in places:
                pair = Preference(attribute=attribute, better=places[better], worse=places[worse])
                sides = candidates[pair.better], candidates[pair.worse]
                word, why = word_on(sides, made.verdicts[attribute], direction, near=whole.recipe.near)
                preferences.append(pair.model_copy(update={"verified": word, "unscored": why}))
    return QuestionSet(
        id=thread.id,
        conversation_id=thread.conversation_id,
        group=thread.group,
        split=thread.split,
        context=context_of(thread, whole),
        candidates=tuple(candidates),
        preferences=tuple(preferences),
        redacted=thread.redacted and not whole.profiles,
    )


def word_on(
    pair: tuple[Candidate, Candidate], verdict: Verdict | None, direction: Direction, *, near: float
) -> tuple[bool | None, str | None]:
    """Whether a preference is verified, or why nothing can be said of it."""
    if fault := next((each.fault for each in pair if each.fault), None):
        return None, fault
    if variants.alike(pair[0].text, pair[1].text, near=near):
        return None, "same wording"
    if verdict is None:
        return None, "not judged"
    return verified(verdict, direction)
