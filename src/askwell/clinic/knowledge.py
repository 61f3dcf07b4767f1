"""What the simulated clinic knows: findings, conditions, and how likely each is. Invented for tests, no medical advice.

Read from `texts/clinic/*.toml`, a file a body system, and checked as a whole: a file that lacks something is refused
with what it lacks. Given a condition, a person's age and sex, findings are independent of one another; a finding that a
condition says nothing about occurs at its base rate. `World` holds the same as arrays, in the order of the files.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from askwell.errors import DataError
from askwell.texts import TEXTS

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

FOLDER = TEXTS / "clinic"
Sex = Literal["female", "male"]
Probability = Annotated[float, Field(gt=0, lt=1)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Texts = tuple[Text, ...]
LEVELS = ("good", "vague", "jargon", "leading", "wrong")
"""How a question for a finding can be worded. Beside them stand double-barrelled and irrelevant questions, which
`clinic.language` makes of several findings, or of none."""


class Entry(BaseModel):
    """Base of what stands in the files."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Questions(Entry):
    """One question for a finding, worded at each level; the last of each list is kept for test."""

    good: Texts = Field(min_length=4)
    vague: Texts = Field(min_length=2)
    jargon: Texts = Field(min_length=2)
    leading: Texts = Field(min_length=2)
    wrong: Texts = Field(min_length=2)


class Finding(Entry):
    """Something that a person has or has not, and can be asked about.

    `yes` and `no` are whole sentences that a patient says of it; `lay` and `clinical` are noun phrases that fit into
    "Do you have ...?" and "Denies ...". `base` is its probability where the condition says nothing about it.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]*$")]
    yes: Texts = Field(min_length=4)
    no: Texts = Field(min_length=3)
    lay: Texts = Field(min_length=2)
    clinical: Texts = Field(min_length=2)
    base: Probability
    questions: Questions


class Modifier(Entry):
    """Multiplies the odds of a finding, given the condition, for people of a sex or an age in [age_from, age_to]."""

    finding: str
    odds: float = Field(gt=0)
    sex: Sex | None = None
    age_from: int = 0
    age_to: int = 200


class Span(Entry):
    """Multiplies a condition's prior for people of an age in [age_from, age_to]."""

    age_from: int
    age_to: int
    times: float = Field(gt=0)


class Condition(Entry):
    """What may be behind the findings.

    `prior` is a weight among all conditions; `findings` P(finding | condition); `volunteers` the probability that a
    person who has the finding mentions it unasked.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]*$")]
    name: Text
    prior: float = Field(gt=0)
    female: float = Field(default=1.0, ge=0)
    male: float = Field(default=1.0, ge=0)
    ages: tuple[Span, ...] = ()
    findings: dict[str, Probability] = Field(min_length=5)
    volunteers: dict[str, Probability] = Field(min_length=2)
    modifiers: tuple[Modifier, ...] = ()
    recommendation: Text


class System(Entry):
    """One file: a body system."""

    fiction: Literal["Invented for tests. Not medical advice."]
    system: Text
    finding: tuple[Finding, ...]
    condition: tuple[Condition, ...]


class Person(NamedTuple):
    """Somebody who comes to the clinic."""

    age: int
    sex: Sex


class World:
    """The clinic's knowledge as arrays over conditions C and findings F."""

    def __init__(self, systems: Iterable[System]) -> None:
        files = tuple(systems)
        self.findings = tuple(finding for system in files for finding in system.finding)
        self.conditions = tuple(condition for system in files for condition in system.condition)
        self.system_of = {finding.id: system.system for system in files for finding in system.finding}
        self.finding_ids = tuple(finding.id for finding in self.findings)
        self.condition_ids = tuple(condition.id for condition in self.conditions)
        self.place = {name: i for i, name in enumerate(self.finding_ids)}
        check(self)
        self._weights = np.array([condition.prior for condition in self.conditions])
        self._base = np.array([finding.base for finding in self.findings])
        self._tables: dict[Person, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def prior(self, person: Person) -> NDArray[np.float64]:
        """P(condition | age, sex), (C,). Read-only, as there is one for all who are alike."""
        return self._of(person)[0]

    def likelihood(self, person: Person) -> NDArray[np.float64]:
        """P(finding | condition, age, sex), (C, F). Read-only, as there is one for all who are alike."""
        return self._of(person)[1]

    def _of(self, person: Person) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        found = self._tables.get(person)
        if found is None:
            found = self._tables[person] = self._prior(person), self._likelihood(person)
            for table in found:
                table.flags.writeable = False
        return found

    def _prior(self, person: Person) -> NDArray[np.float64]:
        factors = [
            getattr(condition, person.sex)
            * math.prod(span.times for span in condition.ages if span.age_from <= person.age <= span.age_to)
            for condition in self.conditions
        ]
        weights = self._weights * np.array(factors, dtype=float)
        return weights / weights.sum()

    def _likelihood(self, person: Person) -> NDArray[np.float64]:
        table = np.tile(self._base, (len(self.conditions), 1))
        for row, condition in zip(table, self.conditions, strict=True):
            for name, probability in condition.findings.items():
                row[self.place[name]] = probability
            for modifier in condition.modifiers:
                fits = modifier.sex in (None, person.sex) and modifier.age_from <= person.age <= modifier.age_to
                if fits:
                    place = self.place[modifier.finding]
                    odds = row[place] / (1 - row[place]) * modifier.odds
                    row[place] = odds / (1 + odds)
        return table


def check(world: World) -> None:
    """Refuse a world that contradicts itself. Raises DataError with everything that is wrong."""
    faults = []
    for kind, names in (("finding", world.finding_ids), ("condition", world.condition_ids)):
        faults += [f"{kind} {name!r} stands twice" for name in sorted(set(names)) if names.count(name) > 1]
    for condition in world.conditions:
        named = {
            "findings": condition.findings.keys(),
            "volunteers": condition.volunteers.keys(),
            "modifiers": {modifier.finding for modifier in condition.modifiers},
        }
        for field, names in named.items():
            unknown = sorted(set(names) - set(world.finding_ids))
            faults += [f"condition {condition.id!r}: {field} names no finding: {', '.join(unknown)}"] if unknown else []
        if extra := sorted(condition.volunteers.keys() - condition.findings.keys()):
            faults.append(f"condition {condition.id!r}: volunteers what is none of its findings: {', '.join(extra)}")
    if faults:
        raise DataError(f"{FOLDER}: {'; '.join(faults)}")


def read(path: Path) -> System:
    """One file. Raises DataError with the field and what it lacks."""
    try:
        value: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return System.model_validate(value)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        faults = error.errors(include_url=False)[:3]
        told = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        raise DataError(f"{path}: {told}") from None


@lru_cache(maxsize=4)
def load(folder: Path = FOLDER, *, systems: tuple[str, ...] = ()) -> World:
    """The world in a folder's files, in the order of their names; with `systems`, only the conditions of these files
    and the findings that say something about them. Raises DataError."""
    files = {path.stem: read(path) for path in sorted(folder.glob("*.toml"))}
    if not files:
        raise DataError(f"{folder}: no *.toml in it")
    if unknown := sorted(set(systems) - files.keys()):
        raise DataError(f"{folder}: no body system {', '.join(map(repr, unknown))}; known: {', '.join(files)}")
    if not systems:
        return World(files.values())
    kept = {name: file.condition if name in systems else () for name, file in files.items()}
    telling = {
        finding
        for conditions in kept.values()
        for condition in conditions
        for finding in (*condition.findings, *(modifier.finding for modifier in condition.modifiers))
    }
    return World(
        file.model_copy(
            update={"condition": kept[name], "finding": tuple(found for found in file.finding if found.id in telling)}
        )
        for name, file in files.items()
    )
