"""Small worlds of given conditions and findings, with generated wordings, and random ones of any size."""

from collections.abc import Mapping
from itertools import product
from string import ascii_lowercase

import numpy as np

from askwell.clinic.knowledge import Condition, Finding, Modifier, Questions, Span, System, World

FICTION = "Invented for tests. Not medical advice."


def finding_of(name, base=0.05):
    """A finding whose every wording names it."""
    said = name.replace("_", " ")
    return Finding(
        id=name,
        yes=tuple(f"{word} I have {said}." for word in ("Yes,", "Indeed,", "Well,", "Yes, often,")),
        no=tuple(f"{word} I have no {said}." for word in ("No,", "Never,", "Well,")),
        lay=(said, f"any {said}"),
        clinical=(f"{said} sign", f"manifest {said}"),
        base=base,
        questions=Questions(
            good=tuple(
                f"{start} {said}?" for start in ("Do you have", "Have you had", "Is there any", "Did you notice")
            ),
            vague=(f"How is {said} and all that?", f"Anything like {said}?"),
            jargon=(f"Does {said} manifest?", f"Is {said} endorsed?"),
            leading=(f"You have {said}, don't you?", f"Surely there is {said}?"),
            wrong=(f"Has the moon given you {said}?", f"Is {said} in your shoes?"),
        ),
    )


def world_of(
    probabilities: Mapping[str, Mapping[str, float]],
    base: float | Mapping[str, float] = 0.05,
    priors: Mapping[str, float] | None = None,
    *,
    findings=(),
    volunteers: Mapping[str, Mapping[str, float]] | None = None,
    fields: Mapping[str, Mapping] | None = None,
) -> World:
    """A world of {condition: {finding: P(finding | condition)}}, in the order of their first mention.

    `base` is one rate or {finding: rate} (0.05 elsewhere); `findings` names more, of no condition; `volunteers`
    defaults to one half for what is likelier than not; `fields` {condition: {field: value}} sets other fields (female,
    male, ages, modifiers). A condition may have fewer findings here than a file must give it.
    """
    names = dict.fromkeys([*(name for row in probabilities.values() for name in row), *findings])
    rates = (
        dict.fromkeys(names, base) if isinstance(base, float | int) else {name: base.get(name, 0.05) for name in names}
    )
    conditions = []
    for condition, row in probabilities.items():
        likely = {name: 0.5 for name, chance in row.items() if chance >= 0.5}
        more = dict((fields or {}).get(condition, {}))
        more["ages"] = tuple(Span.model_validate(span) for span in more.get("ages", ()))
        more["modifiers"] = tuple(Modifier.model_validate(modifier) for modifier in more.get("modifiers", ()))
        conditions.append(
            Condition.model_construct(
                id=condition,
                name=condition.replace("_", " "),
                prior=(priors or {}).get(condition, 1.0),
                findings=dict(row),
                volunteers=dict((volunteers or {}).get(condition, likely)),
                recommendation=f"Rest until {condition.replace('_', ' ')} is over.",
                **more,
            )
        )
    made = tuple(finding_of(name, rates[name]) for name in names)
    return World([System(fiction=FICTION, system="tests", finding=made, condition=tuple(conditions))])


def letters(count, kind):
    """Ids of one kind: kind_aa, kind_ab, and so on."""
    return [f"{kind}_{a}{b}" for a, b in product(ascii_lowercase, repeat=2)][:count]


def random_world(seed, conditions, findings, *, named=7, low=0.1, high=0.9, base=(0.02, 0.15)) -> World:
    """A random world whose conditions name `named` findings each (of `findings`), with likelihoods in [low, high]."""
    random = np.random.default_rng(seed)
    names = letters(findings, "finding")
    table = {
        condition: {
            str(name): float(random.uniform(low, high))
            for name in sorted(random.choice(names, size=min(named, findings), replace=False))
        }
        for condition in letters(conditions, "condition")
    }
    rates = {name: float(random.uniform(*base)) for name in names}
    priors = {
        condition: float(weight) for condition, weight in zip(table, random.gamma(2, size=conditions), strict=True)
    }
    return world_of(table, rates, priors, findings=names)
