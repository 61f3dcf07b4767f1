"""What the answers so far say, what the next question would say, and which question a good asker asks.

All of it is exact: the posterior by Bayes' rule over every condition, the information gain of every finding, the value
of an asker and of the best possible one by enumeration. Shapes: C conditions, F findings, in the order of the world.
Probabilities are in [0, 1], information in nats, costs in shares of a right answer: an asker's worth is the probability
that the condition it holds for the most probable is the right one, less its cost for every question. No I/O.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from askwell.clinic.knowledge import Person, Sex, World
from askwell.statistics import Estimate, mean_interval

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
CERTAIN = 1e-12
"""No answer is impossible: probabilities of answers stay this far from 0 and 1, whatever a modifier makes of them."""
TIE = 1e-9
"""Worths closer than this are equal."""
SEXES: tuple[Sex, ...] = get_args(Sex)
FIRST = 3
"""Of the questions worth most as one of a pair, how many Reference follows further: beside the one that gains most."""


class Tables(NamedTuple):
    """What holds of a person whatever they answer: the log prior (C,), P(answer | condition) for no and yes (2, C, F),
    their logarithms in rows (2 F, C), no and yes to the first finding, then to the second and so on, and the entropy of
    the answer under each condition (C, F)."""

    prior: Floats
    chances: Floats
    logs: Floats
    doubts: Floats

    @classmethod
    @lru_cache(maxsize=256)  # people of 18 to 90 are 146
    def of(cls, world: World, person: Person) -> "Tables":
        """Read-only, as they are one for all who are alike."""
        present = world.likelihood(person).clip(CERTAIN, 1 - CERTAIN)
        chances = np.stack([1 - present, present])
        with np.errstate(divide="ignore"):
            prior = np.log(world.prior(person))
        tables = cls(prior, chances, np.log(chances).T.swapaxes(1, 2).reshape(-1, len(prior)), doubt(present))
        for table in tables:
            table.flags.writeable = False
        return tables


@dataclass(frozen=True, eq=False)
class Belief:
    """The posterior over conditions for a person who gave some answers. Never changes; `given` makes the next."""

    world: World
    person: Person
    answers: Mapping[str, bool]
    tables: Tables

    @classmethod
    def of(cls, world: World, person: Person, answers: Mapping[str, bool] | None = None) -> "Belief":
        return cls(world, person, dict(answers or {}), Tables.of(world, person))

    def given(self, finding: str, present: bool) -> "Belief":
        """After one more answer. Raises ValueError where the same finding was answered otherwise."""
        if self.answers.get(finding, present) != present:
            raise ValueError(f"{finding!r} was answered both ways")
        return Belief(self.world, self.person, {**self.answers, finding: present}, self.tables)

    @cached_property
    def posterior(self) -> Floats:
        """P(condition | age, sex, answers), (C,). Summed in the world's order: the order of answers changes no bit."""
        logs = self.tables.prior
        if self.answers:
            rows = sorted([2 * self.world.place[finding] + present for finding, present in self.answers.items()])
            logs = logs + self.tables.logs.take(rows, axis=0).sum(axis=0)
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        weights.flags.writeable = False
        return weights

    @cached_property
    def probabilities(self) -> Floats:
        """P(present | answers) of every finding, (F,); 0 or 1 for those answered."""
        found = self.posterior @ self.tables.chances[1]
        for finding, present in self.answers.items():
            found[self.world.place[finding]] = present
        found.flags.writeable = False
        return found

    def probable(self, finding: str) -> float:
        """P(present | answers) of one finding."""
        return float(self.probabilities[self.world.place[finding]])

    @property
    def best(self) -> str:
        """The most probable condition; the first of those that tie."""
        return self.world.condition_ids[int(self.posterior.argmax())]

    def open(self, asked: Collection[str] = ()) -> NDArray[np.intp]:
        """The places of the findings that are neither answered nor asked, in order."""
        done = {*asked, *self.answers}
        return np.array([i for i, name in enumerate(self.world.finding_ids) if name not in done], dtype=np.intp)


def doubt(present: Floats) -> Floats:
    """Entropy of an answer that is yes with probability `present`, of any shape, in nats."""
    present = present.clip(CERTAIN, 1 - CERTAIN)
    return -(present * np.log(present) + (1 - present) * np.log1p(-present))


def gains(posterior: Floats, present: Floats, doubts: Floats) -> Floats:
    """Mutual information of condition and answer, (..., F), in nats, for posteriors (..., C)."""
    return np.maximum(doubt(posterior @ present) - posterior @ doubts, 0)


def information_gain(belief: Belief) -> Floats:
    """The expected fall in the posterior's entropy from asking for each finding, (F,), in nats; 0 if answered."""
    gain = gains(belief.posterior, belief.tables.chances[1], belief.tables.doubts)
    for finding in belief.answers:
        gain[belief.world.place[finding]] = 0
    return gain


def joint_gain(belief: Belief, findings: Collection[str]) -> float:
    """The expected fall in the posterior's entropy from asking for some findings at once, in nats: 2^n answers."""
    places = [belief.world.place[finding] for finding in dict.fromkeys(findings) if finding not in belief.answers]
    ways = belief.posterior[:, None]  # (C, answers)
    for place in places:
        ways = (ways[:, :, None] * belief.tables.chances[:, :, place].T[:, None, :]).reshape(len(ways), -1)
    chances = ways.sum(axis=0)
    known = belief.posterior @ belief.tables.doubts[:, places].sum(axis=1)
    return max(0.0, float(-(chances @ np.log(chances)) - known))


class Asker(Protocol):
    """Chooses the next question: a finding's id that is neither answered nor in `asked`, or None to stop."""

    def next(self, belief: Belief, asked: Collection[str]) -> str | None: ...


class Random:
    """Any open question, each as likely; never stops while there is one."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def next(self, belief: Belief, asked: Collection[str]) -> str | None:
        places = belief.open(asked)
        return belief.world.finding_ids[self._random.choice(places)] if len(places) else None


@dataclass(frozen=True)
class Myopic:
    """The question with the largest information gain; stops when that is less than `cost` nats.

    A nat is worth less than a right answer: it does best with about three times the cost that `value` counts.
    """

    cost: float

    def next(self, belief: Belief, asked: Collection[str]) -> str | None:
        places = belief.open(asked)
        gain = information_gain(belief)[places]
        if not len(places) or gain.max() < self.cost:
            return None
        return belief.world.finding_ids[places[gain.argmax()]]


@dataclass(frozen=True)
class Reference:
    """Asks for the largest P(most probable condition is right) - cost per question, over all plans that it considers.

    They are: any two questions; and one of the few most promising, then up to `series` questions that each gain the
    most information; all may stop after any answer. Two alone give up early where only several together change the most
    probable condition. It stops where no plan is worth its cost; at no cost it never does. Ties go to information gain.

    `most` is how many questions it may ask in all: it plans for those that are left. Without it, it plans for the end
    of the interview, so that at first its questions may tell little by themselves: the best after some given number of
    questions is the one that knows this number.
    """

    cost: float
    series: int = 5
    most: int | None = None

    def next(self, belief: Belief, asked: Collection[str]) -> str | None:
        places, held = belief.open(asked), belief.posterior
        left = len(places) if self.most is None else min(len(places), self.most - len(asked))
        if left <= 0:
            return None
        chances, doubts = belief.tables.chances[:, :, places], belief.tables.doubts[:, places]
        gain = gains(held, chances[1], doubts)
        worth = (pair_worths if left > 1 else single_worths)(held, chances, self.cost)
        first = np.unique([*np.argsort(-worth, kind="stable")[:FIRST], gain.argmax()])
        mass = np.concatenate((held[:, None] * chances[:, :, first]).swapaxes(1, 2))
        free = np.tile(~np.eye(len(places), dtype=bool)[first], (2, 1))
        then = series_worth(mass, free, chances[1], doubts, self.cost, min(self.series, left - 1))
        worth[first] = np.maximum(worth[first], then.reshape(2, -1).sum(axis=0) - self.cost)
        if worth.max() < held.max() - TIE:
            return None
        ties = np.flatnonzero(worth >= worth.max() - TIE)
        return belief.world.finding_ids[places[ties[gain[ties].argmax()]]]


def single_worths(held: Floats, chances: Floats, cost: float) -> Floats:
    """What asking each finding is worth, (F,), to one who then stops. Of what, see `pair_worths`."""
    return (held[:, None] * chances).max(axis=1).sum(axis=0) - cost


def pair_worths(held: Floats, chances: Floats, cost: float) -> Floats:
    """What asking each finding is worth, (F,), to one who then stops or asks for one more, as the answer suggests.

    `held` (C,) is the posterior, `chances` (2, C, F) P(answer | condition) of the open findings.
    """
    rows, count = chances.swapaxes(0, 1).reshape(len(held), -1), chances.shape[2]
    pairs, pair = np.zeros((2, 2 * count, 2 * count))
    for mass, row in zip(held, rows, strict=True):
        np.maximum(pairs, np.dot((mass * row)[:, None], row[None], out=pair), out=pairs)
    two = pairs.reshape(-1, 2, count).sum(axis=1) - cost * (held @ rows)[:, None]
    two[np.arange(2 * count), np.tile(np.arange(count), 2)] = -np.inf  # no finding is asked for twice
    one = (held[:, None] * rows).max(axis=0)
    return np.maximum(one, two.max(axis=1)).reshape(2, count).sum(axis=0) - cost


def series_worth(mass: Floats, free: Flags, present: Floats, doubts: Floats, cost: float, most: int) -> Floats:
    """What up to `most` questions, each of the largest information gain, are worth where one stops at the best, (B,).

    `mass` (B, C) is P(condition, answers so far) after B series of answers, `free` (B, F) what they leave to ask.
    """
    stop = mass.max(axis=1)
    if not most or not free[0].any():
        return stop
    total = mass.sum(axis=1)
    posterior = mass / np.maximum(total, np.finfo(float).tiny)[:, None]
    places = np.where(free, gains(posterior, present, doubts), -1).argmax(axis=1)
    yes = mass * present[:, places].T
    left = free.copy()
    left[np.arange(len(places)), places] = False
    then = np.concatenate([yes, mass - yes]), np.concatenate([left, left])
    asking = series_worth(*then, present, doubts, cost, most - 1).reshape(2, -1).sum(axis=0) - cost * total
    return np.maximum(stop, asking)


def optimal_value(
    world: World, person: Person, known: Mapping[str, bool], cost: float, *, among: Collection[str] | None = None
) -> float:
    """The worth of the best possible asker of the findings `among` (None: all that are not known).

    By dynamic programming over what may be known of them: 3^n states, so for up to about ten findings.
    """
    belief = Belief.of(world, person, known)
    places = belief.open() if among is None else [world.place[finding] for finding in sorted(set(among) - set(known))]
    mass = belief.posterior
    for place in places:
        ways = np.stack([np.ones(len(mass)), *belief.tables.chances[:, :, place]], axis=1)
        mass = mass[..., None] * ways.reshape(len(mass), *[1] * (mass.ndim - 1), 3)
    worth, paid = mass.max(axis=0), cost * mass.sum(axis=0)
    for _ in places:
        for axis in range(len(places)):
            ways, price = np.moveaxis(worth, axis, 0), np.moveaxis(paid, axis, 0)  # ways: not asked, no, yes
            ways[:1] = np.maximum(ways[:1], ways[1:2] + ways[2:] - price[:1])
    return float(worth.ravel()[0])


def value(
    asker: Asker,
    world: World,
    person: Person,
    known: Mapping[str, bool],
    cost: float,
    *,
    among: Collection[str] | None = None,
) -> float:
    """The worth of an asker, to be compared with `optimal_value`: exact, over all that a person could answer it.

    An asker that draws is followed along its draws, so this is then the worth of one such series of draws.
    """

    def of(belief: Belief, asked: frozenset[str]) -> float:
        finding = asker.next(belief, asked)
        if finding is None:
            return float(belief.posterior.max())
        chance, asked = belief.probable(finding), asked | {finding}
        yes, no = of(belief.given(finding, True), asked), of(belief.given(finding, False), asked)
        return chance * yes + (1 - chance) * no - cost

    barred = () if among is None else set(world.finding_ids) - set(among)
    return of(Belief.of(world, person, known), frozenset(barred))


class Truth(NamedTuple):
    """What is true of somebody: who they are, the condition behind it, and each finding, (F,)."""

    person: Person
    condition: str
    present: Flags


def sample_case(world: World, random: np.random.Generator) -> Truth:
    """Somebody of 18 to 90 years and either sex, each as likely; condition and findings as the world has them."""
    person = Person(int(random.integers(18, 91)), SEXES[random.integers(2)])
    heaped = world.prior(person).cumsum()
    # What random.choice(p=prior) draws, without its checks of the prior, which take thrice as long.
    condition = int((heaped / heaped[-1]).searchsorted(random.random(), side="right"))
    present = random.random(len(world.findings)) < world.likelihood(person)[condition]
    return Truth(person, world.condition_ids[condition], present)


def play(asker: Asker, belief: Belief, truth: Flags, *, most: int | None = None) -> list[tuple[str, bool]]:
    """The questions of an asker who stops by itself, or after `most`, with the answers of somebody of `truth`, (F,)."""
    played: list[tuple[str, bool]] = []
    for _ in range(len(truth) if most is None else most):
        finding = asker.next(belief, {name for name, _ in played})
        if finding is None:
            break
        played.append((finding, bool(truth[belief.world.place[finding]])))
        belief = belief.given(*played[-1])
    return played


def course(asker: Asker, belief: Belief, case: Truth, most: int) -> list[float]:
    """Whether the most probable condition is the right one, 1 or 0, after 0 to `most` questions to one person."""
    right = [float(belief.best == case.condition)]
    for finding, answer in play(asker, belief, case.present, most=most):
        belief = belief.given(finding, answer)
        right.append(float(belief.best == case.condition))
    return right + right[-1:] * (most + 1 - len(right))


def curve(asker: Asker, world: World, cases: Iterable[Truth], most: int) -> list[Estimate]:
    """How often the most probable condition is the right one after 0 to `most` questions, each with its interval.

    Where the asker stops, its accuracy stays; at no cost Myopic and Reference go on to the last question.
    """
    right = [course(asker, Belief.of(world, case.person), case, most) for case in cases]
    names = [str(i) for i in range(len(right))]
    return [mean_interval(column, names) for column in zip(*right, strict=True)]
