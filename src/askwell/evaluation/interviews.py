"""`askwell evaluate interviews`: who asks, in conversation with the people of cases, and what came of it.

Two ways. A policy in this process interviews the simulated clinic's patients in lockstep, stops by its own marker, and
exact reasoning weighs what it brought to light, so that accuracy says how well was asked, not how well was guessed.
Else asker, abstention rule, decision maker and patient are models behind endpoints (`clinic:` and `local:` among them)
or need none; all interviews are held side by side, and each is on disk as soon as it has ended.

Writes cases.jsonl (Case, options as they were shown), records.jsonl (Episode), unscored.jsonl with the interviews that
could not be held, report.json, report.md and report.html. Beside every accuracy stands what it lies between on the same
cases.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from askwell import endpoints, jsonl, runs
from askwell.clinic import knowledge
from askwell.clinic.knowledge import FOLDER, World
from askwell.clinic.language import Oracle, oracle_of
from askwell.clinic.logs import SKILLS, Expert
from askwell.clinic.reasoning import Asker as Reasoner
from askwell.clinic.reasoning import Myopic, Random, Reference, course
from askwell.errors import DataError, RecipeError
from askwell.evaluation import interview_page, interview_report
from askwell.evaluation.interview_figures import as_json, figures
from askwell.evaluation.stopping import Stops
from askwell.evaluation.stopping import stops as stops_of
from askwell.interview import experts, patients, talk
from askwell.interview.cases import MADE_BY, chosen, shuffled
from askwell.interview.clinic import (
    AsyncClinicPatient,
    ClinicPatient,
    ExactDecisionMaker,
    SpeakingAsker,
    Visitor,
    stated,
    visitors,
)
from askwell.interview.loop import Asker, interviews
from askwell.llm import prompts, stage
from askwell.llm.client import Client, permit
from askwell.llm.store import Store, store_of
from askwell.llm.transport import Transport
from askwell.recipes import LOCAL, Endpoint, EvaluateInterviewsRecipe
from askwell.records import Case, Episode, Message, Record
from askwell.statistics import Estimate, mean_interval
from askwell.texts import prompt_file

__all__ = ["as_json", "figures", "inputs", "load", "plan", "run"]

log = logging.getLogger(__name__)
OWN = ("reference", "myopic", "random", *SKILLS)
PEOPLE = 300
"""The clinic's people who are interviewed where the recipe says no number."""
CEILING = 6
"""Questions up to which the best possible asker is asked: its cost grows with their square."""
AT_ONCE = 1024
"""Interviews that are held side by side: more than most endpoints have slots, so that none stands empty at the end."""
Held = Literal["interview", "random patient", "everything known"]


class Unheld(Record):
    """One line of unscored.jsonl: an interview that could not be held, and why."""

    case_id: str
    reason: str
    detail: str
    text: str


class Gathering(NamedTuple):
    """The cases as they are shown, and for the clinic's own the people behind them."""

    cases: list[Case]
    people: list[Visitor]
    world: World | None


def inputs(recipe: EvaluateInterviewsRecipe) -> list[Path]:
    """Cases, prompts, checkpoints. Refuses, before anything is sent, what cannot be read or may not go elsewhere."""
    name = recipe.policy.removeprefix("clinic:")
    if recipe.policy.startswith("clinic:") and name not in OWN:
        raise RecipeError(f"policy: the clinic has no asker {name!r}; known: {', '.join(OWN)}")
    if recipe.lockstep:
        policy = Path(recipe.policy)
        return [FOLDER, *([policy] if policy.exists() else [])]
    files = [FOLDER]
    if recipe.cases != "clinic":
        files = [Path(recipe.cases)]
        runs.require(files[0], made_by=MADE_BY)
    for endpoint in endpoints_of(recipe):
        if recipe.cases != "clinic":
            permit(endpoint, redacted=runs.redacted(Path(recipe.cases)), what=Path(recipe.cases))
        files += endpoints.inputs(endpoint)
    return [*files, *texts(recipe)]


def texts(recipe: EvaluateInterviewsRecipe) -> list[Path]:
    """The files of all that models are told."""
    rule = recipe.abstention.rule
    files = patients.texts(recipe.who_is_asked)
    files += [prompt_file(name)] if (name := prompt_of(recipe)) else []
    files += [] if rule in ("own", "fixed") else [prompts.load(f"abstain_{rule}").file]
    return files + ([prompts.load(experts.DECIDE).file] if recipe.decision else [])


def plan(recipe: EvaluateInterviewsRecipe) -> dict[str, object]:
    """How many interviews will take place, and the most calls that they can take."""
    inputs(recipe)
    count = recipe.limit or PEOPLE
    if recipe.cases != "clinic":
        count = len(chosen(Path(recipe.cases), recipe.limit))
    found: dict[str, object] = {"interviews": count, "questions at most": count * recipe.most}
    if recipe.lockstep:
        return found
    points, rule = recipe.most + 1, recipe.abstention
    each = recipe.most * ((recipe.who_asks is not None) + (recipe.who_is_asked.endpoint is not None))
    each += points * (recipe.decision is not None)
    each += points * (0 if rule.rule in ("own", "fixed") else rule.samples)
    return {**found, "calls at most": count * each, "with bounds at most": count * each * len(kinds_of(recipe))}


def run(
    recipe: EvaluateInterviewsRecipe, run: runs.Run, transports: dict[str, Transport] | None = None
) -> dict[str, object]:
    """Interview, then what the figures lie between; `transports` by model are for tests."""
    return in_lockstep(recipe, run) if recipe.lockstep else side_by_side(recipe, run, transports or {})


def load(directory: Path) -> dict[str, Any]:
    """report.json of a finished run."""
    runs.require(directory, made_by="askwell evaluate interviews")
    return json.loads((directory / "report.json").read_text(encoding="utf-8"))


def in_lockstep(recipe: EvaluateInterviewsRecipe, run: runs.Run) -> dict[str, object]:
    """A policy and the clinic's patients, before exact reasoning."""
    cases, people, world = gathered(recipe)
    assert world is not None
    oracle = oracle_of(world)
    maker = ExactDecisionMaker(world, oracle)

    def held(asker: Asker) -> list[Episode]:
        asked = [ClinicPatient(world, oracle, visitor) for visitor in people]
        return interviews(cases, asked, asker, maker, most=recipe.most, stop_marker=recipe.stop_marker)

    episodes = held(asker_of(recipe, world, oracle))
    jsonl.write(run.records, episodes)
    log.info("%d interviews%s", len(episodes), "; bounds on the same patients" if recipe.bounds else "")
    bounds = {
        name: held(speaking(name, recipe, world, oracle))
        for name in ("reference", "random")
        if recipe.bounds and recipe.policy != f"clinic:{name}"
    }
    full = [maker.choose(case, case.facts)[0] == case.answer for case in cases]
    best = ceiling(people, maker, most=min(recipe.most, CEILING), seed=recipe.seed) if recipe.bounds else []
    stops = against_reference(recipe, episodes, cases, world)
    return reported(recipe, run, cases, list(episodes), bounds=bounds, full=full, best=best, stops=stops)


def against_reference(
    recipe: EvaluateInterviewsRecipe, episodes: Sequence[Episode | None], cases: Sequence[Case], world: World | None
) -> Stops | None:
    """Stops against the reference asker's; None where nobody knows when to stop, or no bounds are wanted."""
    if world is None or not recipe.bounds:
        return None
    maker = ExactDecisionMaker(world, Oracle(world))
    return stops_of(episodes, cases, maker, Reference(cost=recipe.cost), seed=recipe.seed)


def ceiling(people: Sequence[Visitor], maker: ExactDecisionMaker, *, most: int, seed: int) -> list[Estimate]:
    """Accuracy after 0 to `most` questions of the best possible asker, which knows how many it has each time."""
    beliefs = [maker.belief(visitor.case.initial_information, {}) for visitor in people]
    groups = [visitor.case.group for visitor in people]
    return [
        mean_interval(
            [
                course(Reference(0.0, most=count), belief, visitor.truth, count)[count]
                for belief, visitor in zip(beliefs, people, strict=True)
            ],
            groups,
            seed=seed,
        )
        for count in range(most + 1)
    ]


def gathered(recipe: EvaluateInterviewsRecipe) -> Gathering:
    """Whom to interview."""
    if recipe.cases != "clinic":
        cases = chosen(Path(recipe.cases), recipe.limit)
        return Gathering([shuffled(case, recipe.seed) if recipe.shuffle else case for case in cases], [], None)
    world = knowledge.load(systems=recipe.systems)
    people = visitors(world, recipe.limit or PEOPLE, seed=recipe.seed, split=recipe.split)
    cases = [visitor.case for visitor in people]
    if recipe.shuffle and not recipe.lockstep:  # exact reasoning does not look at their order
        cases = [shuffled(case, recipe.seed) for case in cases]
    return Gathering(cases, people, world)


def asker_of(recipe: EvaluateInterviewsRecipe, world: World, oracle: Oracle) -> Asker:
    """Who asks."""
    if recipe.policy.startswith("clinic:"):
        return speaking(recipe.policy.removeprefix("clinic:"), recipe, world, oracle)
    return PolicyAsker(recipe)


def speaking(name: str, recipe: EvaluateInterviewsRecipe, world: World, oracle: Oracle) -> SpeakingAsker:
    """An asker of the clinic."""
    askers: dict[str, Reasoner] = {
        "reference": Reference(cost=recipe.cost),
        "myopic": Myopic(cost=0.05),
        "random": Random(recipe.seed),
        **{name: Expert(skill, recipe.seed) for name, skill in SKILLS.items()},
    }
    return SpeakingAsker(world, oracle, askers[name], stop_marker=recipe.stop_marker, seed=recipe.seed)


class PolicyAsker:
    """A local checkpoint."""

    def __init__(self, recipe: EvaluateInterviewsRecipe) -> None:
        from askwell.generation import LocalPolicy

        self.recipe, self._round = recipe, 0
        self._policy = LocalPolicy.load(recipe.policy, prompt=recipe.prompt or "", stop_marker=recipe.stop_marker)

    def replies(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """A reply to each."""
        self._round += 1
        return self._policy.replies(
            conversations,
            temperature=self.recipe.temperature,
            top_p=1.0,
            max_new_tokens=self.recipe.max_new_tokens,
            seed=self.recipe.seed + self._round,
        )


def side_by_side(
    recipe: EvaluateInterviewsRecipe, run: runs.Run, transports: dict[str, Transport]
) -> dict[str, object]:
    """Roles that may be models' anywhere; every interview is on disk when it has ended."""
    gathering = gathered(recipe)
    cases, kinds = gathering.cases, kinds_of(recipe)
    spool = stage.Spool(run.path / "spool.jsonl")
    try:
        account = asyncio.run(held(recipe, gathering, spool, transports))
        found: dict[Held, list[Episode | None]] = {kind: [None] * len(cases) for kind in kinds}
        unheld = []
        for outcome in spool.in_order():
            number, place = divmod(outcome.ordinal, len(cases))
            if outcome.state == "ok":
                found[kinds[number]][place] = Episode.model_validate(outcome.value)
            elif kinds[number] == "interview":
                unheld.append(Unheld(case_id=cases[place].id, reason=outcome.state, **outcome.value))
    finally:
        spool.close()
    episodes = found["interview"]
    if not any(episodes):
        raise DataError(f"{recipe.output}: no interview could be held: {dict(Counter(u.reason for u in unheld))}")
    jsonl.write(run.records, [episode for episode in episodes if episode is not None])
    jsonl.write(run.path / "unscored.jsonl", unheld)
    bounds = {"random patient": found["random patient"]} if "random patient" in found else {}
    full = None
    if "everything known" in found:
        full = [
            None if e is None or e.decision is None else e.decision == case.answer
            for e, case in zip(found["everything known"], cases, strict=True)
        ]
    counts = reported(
        recipe,
        run,
        cases,
        episodes,
        bounds=bounds,
        full=full,
        unheld=Counter(u.reason for u in unheld),
        stops=against_reference(recipe, episodes, cases, gathering.world),
    )
    spool.path.unlink()
    return {**counts, **account}


def kinds_of(recipe: EvaluateInterviewsRecipe) -> tuple[Held, ...]:
    """What is held on every case: the interview, and what bounds it where that says anything."""
    if not recipe.bounds:
        return ("interview",)
    kinds: list[Held] = ["interview"]
    if recipe.who_is_asked.kind != "random":
        kinds.append("random patient")
    if recipe.policy != "random":
        kinds.append("everything known")
    return tuple(kinds)


def endpoints_of(recipe: EvaluateInterviewsRecipe) -> list[Endpoint]:
    """Those that are asked, each once, the decision maker's first: its limit of unscored items is the stage's."""
    rule = recipe.abstention
    candidates = (recipe.decision, rule.endpoint, recipe.who_asks, recipe.who_is_asked.endpoint)
    found: list[Endpoint] = []
    for endpoint in candidates:
        if endpoint is not None and endpoint not in found:
            found.append(endpoint)
    return found


def prompt_of(recipe: EvaluateInterviewsRecipe) -> str:
    """The name of the asker's system prompt; empty for none."""
    asker = recipe.who_asks
    if recipe.prompt is not None or asker is None or asker.base_url == LOCAL:
        return recipe.prompt or ""
    return "policy" if recipe.abstention.rule == "own" else "policy_no_stop"


async def held(
    recipe: EvaluateInterviewsRecipe, gathering: Gathering, spool: stage.Spool, transports: dict[str, Transport]
) -> dict[str, object]:
    """Every interview that is not spooled yet; returns what the calls came to by endpoint."""
    kinds, cases = kinds_of(recipe), gathering.cases
    asked = endpoints_of(recipe)
    stores: dict[Path, Store] = {}
    clients: dict[str, Client] = {}
    async with AsyncExitStack() as stack:
        for endpoint in asked:
            path = store_of(endpoint, recipe.output)
            if path not in stores:
                stores[path] = Store(path)
                stack.callback(stores[path].close)
        for number, endpoint in enumerate(asked):
            pinned = endpoints.pinned(endpoint)
            transport = transports.get(endpoint.model) or endpoints.transport_of(pinned)
            name = f"{recipe.output.resolve()} {number}" if number else str(recipe.output.resolve())
            client = Client(pinned, stores[store_of(endpoint, recipe.output)], run=name, transport=transport)
            clients[endpoint.model_dump_json()] = client
            if number:  # the stage opens and closes the first
                await stack.enter_async_context(client)
        expert, asked_patients = seated(recipe, gathering, clients)
        total = len(cases) * len(kinds)

        async def work(item: tuple[Held, Case]) -> Any:
            kind, case = item
            if kind == "everything known":
                meter = talk.Meter()
                choice = await expert.choose(case, experts.everything(case), meter)
                episode = Episode(
                    case_id=case.id, exchanges=(), first_choice=choice.option, decision=choice.option, end="stopped"
                )
            else:
                episode = await talk.hold(case, asked_patients[kind], expert, most=recipe.most)
            return episode.model_dump(mode="json", exclude_defaults=True)

        def items() -> Iterator[tuple[Held, Case]]:
            for kind in kinds:
                for case in cases:
                    yield kind, case

        if not clients:  # nobody to wait for
            for ordinal, item in enumerate(items()):
                if ordinal not in spool:
                    spool.put(stage.Outcome(ordinal, "ok", await work(item)))
            return {}
        first = next(iter(clients.values()))
        await stage.each(items(), work, first, spool, total=total, noun="interviews", at_once=AT_ONCE)
        return {client.name: client.account() for client in clients.values()}


def seated(
    recipe: EvaluateInterviewsRecipe, gathering: Gathering, clients: dict[str, Client]
) -> tuple[talk.Expert, dict[str, talk.Patient]]:
    """The speakers: the expert, and the patients of an interview and of its lower bound."""

    def client_of(endpoint: Endpoint | None) -> Client | None:
        return None if endpoint is None else clients[endpoint.model_dump_json()]

    world, who = gathering.world, recipe.who_is_asked
    oracle = oracle_of(world) if world is not None else None
    own = AsyncClinicPatient(world, oracle, gathering.people) if world is not None and oracle is not None else None
    reads = {"stated": partial(stated, oracle)} if oracle is not None else {}
    patient = patients.of(who, seed=recipe.seed, client=client_of(who.endpoint), own=own, **reads)
    by_kind = {"interview": patient, "random patient": patients.RandomPatient(recipe.seed)}
    if recipe.policy == "random":
        return experts.RandomExpert(recipe.seed), by_kind
    asker: Any = experts.NoAsker()
    if (client := client_of(recipe.who_asks)) is not None:
        asker = experts.ModelAsker(
            client, prompt=system_prompt(recipe), stop_marker=recipe.stop_marker, sees=recipe.sees
        )
    rule: Any = experts.Own()
    if recipe.abstention.rule not in ("own", "fixed"):
        client = client_of(recipe.abstention.endpoint or recipe.decision)
        assert client is not None, "the recipe says so"
        rule = experts.Rule(recipe.abstention, client)
    if (client := client_of(recipe.decision)) is not None:
        maker: Any = experts.ModelDecisionMaker(client, rationale=recipe.rationale)
    else:
        assert world is not None and oracle is not None, "the recipe says so"
        maker = experts.ExactDecision(ExactDecisionMaker(world, oracle).choose)
    return experts.ThreeParts(asker, rule, maker), by_kind


def system_prompt(recipe: EvaluateInterviewsRecipe) -> str:
    """What the asker is told before the conversation."""
    name = prompt_of(recipe)
    text = prompt_file(name).read_text(encoding="utf-8").strip() if name else ""
    return text.replace("{stop_marker}", recipe.stop_marker)


def reported(
    recipe: EvaluateInterviewsRecipe,
    run: runs.Run,
    cases: Sequence[Case],
    episodes: Sequence[Episode | None],
    *,
    bounds: dict[str, Any],
    full: Sequence[bool | None] | None,
    unheld: Counter[str] | None = None,
    best: Sequence[Estimate] = (),
    stops: Stops | None = None,
) -> dict[str, object]:
    """Write cases.jsonl and the report in its three forms; returns the counts."""
    jsonl.write(run.path / "cases.jsonl", cases)
    report = interview_report.build(
        recipe, cases, episodes, bounds=bounds, full=full, unheld=unheld or Counter(), best=best, stops=stops
    )
    runs.write_json(run.report, report)
    runs.write_text(run.path / "report.md", interview_report.markdown(report, episodes, cases, recipe=recipe))
    runs.write_text(run.path / "report.html", interview_page.html(report, episodes, cases, recipe=recipe))
    found = report["figures"]
    return {
        "interviews": sum(episode is not None for episode in episodes),
        "questions": sum(len(episode.exchanges) for episode in episodes if episode is not None),
        "accuracy": round(found["accuracy"]["value"] or 0, 4),
        "mean questions": round(found["questions"]["value"] or 0, 3),
        **({"unscored": dict(unheld)} if unheld else {}),
    }
