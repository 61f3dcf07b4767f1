"""report.html of a policy at logged turns: its figures beside the expert's, second opinions, turns to unfold."""

from collections.abc import Mapping, Sequence
from typing import Any

from askwell.evaluation.metrics import MEANING, PAPER, join, truth
from askwell.evaluation.page import SHOWN, Mark, begun, cell, conversation, escape, folded, legend, strip, table
from askwell.evaluation.report import AGREEMENT, Figures, pick, score, terms
from askwell.recipes import EvaluateTurnsRecipe
from askwell.records import Grade, Turn

LARGEST = {"TR": 4.0}
"""Of the paper's figures, which are shares but for the reward."""


def html(
    report: Mapping[str, Any], turns: Sequence[Turn], grades: Sequence[Grade], *, recipe: EvaluateTurnsRecipe
) -> str:
    """The page."""
    policy, expert = report["figures"], report["expert"]
    parts = [
        *begun(f"{recipe.policy} at logged turns"),
        f"<p>{terms(recipe, quoted=escape)}</p>",
        f"<p class=note>{policy['unscored']['scored']} questions where the expert asks too; unscored of them: "
        f"{cell(policy['unscored'])}.</p>",
        "<h2>What to ask, and when to stop</h2>",
        legend({"a": "policy", "c": "expert"}),
    ]
    for name in PAPER:
        said = f"<small>policy</small> {cell(policy[name])}; <small>expert</small> {cell(expert[name])}"
        parts.append(f"<p class=row><b>{name}</b> <small>{escape(MEANING[name])}</small></p>")
        parts.append(strip([Mark(policy[name], "a"), Mark(expert[name], "c")], most=LARGEST.get(name, 1.0)))
        parts.append(f"<p class=say>{said}</p>")
    rows = [(name, cell(policy[name]), cell(expert[name])) for name in MEANING]
    parts += ["<h2>All figures</h2>", table(rows, head=("", "policy", "expert"))]
    meanings = [f"<li><b>{name}</b>: {escape(meaning)}</li>" for name, meaning in MEANING.items()]
    parts.append(folded("What they mean", ["<ul>", *meanings, "</ul>"]))
    parts += [*second_grader(report["agreement"]), *reader(report["reader"])]
    parts += ["<h2>Turns</h2>", *sampled(turns, grades, seed=recipe.seed)]
    return "\n".join(parts) + "\n"


def second_grader(agreement: Mapping[str, Any] | None) -> list[str]:
    """How far another grader agrees on the same replies, and the figures under it."""
    if agreement is None:
        return []
    rows = [(name, cell(agreement["figures"][name]), cell(agreement["expert"][name])) for name in PAPER]
    return [
        "<h2>The second grader</h2>",
        table([(meaning, cell(agreement[name])) for name, meaning in AGREEMENT.items()]),
        table(rows, head=("under it", "policy", "expert")),
    ]


def reader(found: Figures | None) -> list[str]:
    """Perplexities of the questions under a language model that the policy never saw."""
    if found is None:
        return []
    rows = [(f"perplexity of the {name}'s questions", cell(figure)) for name, figure in found.items()]
    return ["<h2>The reader</h2>", table(rows)]


def sampled(turns: Sequence[Turn], grades: Sequence[Grade], *, seed: int) -> list[str]:
    """Turns to unfold: what was said, what expert and policy said next, and what that is worth."""
    first = {item.turn.id: item.grade for item in join(turns, grades) if item.grade.sample == 0}
    return [one(turn, first[turn.id]) for turn in pick(turns, SHOWN, seed=seed)]


def one(turn: Turn, grade: Grade) -> str:
    """A turn."""
    facts = turn.target.facts if turn.target else None
    left = ", ".join(facts) if facts else "nothing" if facts == () else "not known"
    scores = (("decision", grade.decision_score), ("content", grade.content_score), ("format", grade.format_score))
    said = ", ".join(f"{name} {score(value)}" for name, value in (*scores, ("reward", grade.reward)))
    mark = "right" if grade.decision_score else "wrong"
    title = f"{escape(turn.id)} <span class={mark}>{grade.decision}</span> <small>reward {score(grade.reward)}</small>"
    parts = [
        *conversation(turn.context),
        f"<p class=ask>The expert {'asks' if truth(turn) == 'continue' else 'stops'}</p>",
        f"<p class=say>{escape(turn.expert_reply)}</p>",
        f"<p class=ask>The policy</p><p class=say>{escape(grade.reply)}</p>",
        f"<p class=say><small>Still to find out: {escape(left)}; known: {escape(', '.join(turn.known) or 'nothing')}. "
        f"{said}: {escape(grade.reason)}</small></p>",
    ]
    return folded(title, parts)
