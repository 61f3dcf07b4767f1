"""The pages of questions and of turns: what a reader needs is there, and what people and models said cannot act."""

import re

import pytest
from evaluation_examples import REPLIES, STOP, TURNS, WordGrader, recipe_of

from askwell import recipes
from askwell.evaluation import page, question_page, question_report, report, turn_page
from askwell.evaluation.metrics import expert_replies, figures
from askwell.grading.grades import graded
from askwell.records import Comparison, Message, Reply, ReplySet

TRICK = "<script>alert(1)</script><img src=https://x.example/y onerror=alert(1)>"


def sets_of(systems, count=4):
    return [
        ReplySet(
            id=f"r{i}",
            group=f"g{i}",
            context=(Message(role="user", content=f"{TRICK} {i}"),) if i else (),
            replies={name: f"{name} {TRICK}?" for name in systems if (name, i) != ("c", 3)},
            missing={"c": f"empty {TRICK}"} if "c" in systems and i == 3 else {},
        )
        for i in range(count)
    ]


def compared(sets, first, second, verdicts, attribute="overall"):
    worth = {"first": 1.0, "tie": 0.5, "second": 0.0}
    rows = []
    for row in sets:
        there = first in row.replies and second in row.replies
        rows.append(
            Comparison(
                reply_set_id=row.id,
                group=row.group,
                attribute=attribute,
                first=first,
                second=second,
                words=(3, 5),
                verdicts=verdicts if there else (),
                reasons=("forth " + TRICK, "back " + TRICK) if there else (),
                score=sum(map(worth.__getitem__, verdicts)) / 2 if there else None,
                unscored=None if there else "c: empty",
            )
        )
    return rows


def question_page_of(systems="ab", *, second=None, **fields):
    sets = sets_of(systems)
    rows = [
        row
        for attribute in ("overall", "clarity")
        for name in systems[1:]
        for row in compared(sets, name, "a", ("first", "first" if name == "b" else "second"), attribute)
    ]
    recipe = recipes.EvaluateQuestionsRecipe.model_validate(
        {
            "input": "in",
            "output": "out",
            "human": False,
            "candidates": tuple(systems),
            "reference": "a",
            "judge": {"model": TRICK},
            **fields,
        }
    )
    made = question_report.build(recipe, sets, rows, second and second(rows))
    return question_page.html(made, sets, rows, second and second(rows), recipe=recipe)


def inert(html):
    """Nothing on the page runs or is fetched."""
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html
    assert "default-src 'none'" in html and html.count("<") == html.count(">") - html.count("=>")
    assert not re.search(r"<[^>]*(src|href|onerror)=", html)
    return html


def test_a_page_of_questions_shows_both_orders_with_their_reasons():
    html = inert(question_page_of())
    assert html.count("<summary>All figures</summary>") == 2 and html.count("<details>") == 2 + 4
    assert (
        html.count("a shown first:</small> <b>b</b>; back") == html.count("b shown first:</small> <b>b</b>; forth") == 8
    )
    assert "b against a" in html and "win-rate 1.000" in html and "same verdict in both orders 1.000" in html
    assert "nobody has spoken" in html and "Strengths" not in html and "second judge" not in html.casefold()
    assert "losses dropped" not in html and "invented world" not in html


def test_it_shows_strengths_a_second_judge_and_what_is_unscored_where_there_is_any():
    def turned(rows):
        return [row.model_copy(update={"score": None if row.score is None else 1 - row.score}) for row in rows]

    html = inert(question_page_of("abc", second=turned, second_judge={"model": "other"}, compat="dropped_losses"))
    assert "Strengths" in html and "The second judge" in html and "losses dropped" in html
    assert "Unscored: c: empty (2)" in html and "c against a</b> <small>3 comparisons, 1 unscored (25%)" in html
    assert "overall: c and a, unscored (c: empty)" in html and "<i>empty &lt;script" in html
    assert "overall: c and a, tie" in html and "The second judge: a wins." in html
    assert "equal outcomes 0.000" in html
    fiction = question_page_of(judge={"base_url": "clinic:", "model": "clinic"})
    assert "invented world" in fiction


def test_contexts_are_drawn_by_seed_and_no_more_than_a_page_bears(monkeypatch):
    monkeypatch.setattr(question_page, "SHOWN", 2)
    pages = [question_page_of(seed=seed) for seed in range(6)]
    assert all(html.count("<details>") == 2 + 2 for html in pages)
    assert len({re.findall("<summary>(r[0-9])", html)[0] for html in pages}) > 1
    assert question_page_of(seed=1) == pages[1]


def test_a_strip_draws_figures_where_they_are_and_nothing_where_there_is_none():
    known = {"value": 0.5, "low": 0.25, "high": 1.0, "scored": 4, "unscored": 0}
    none = {"value": None, "low": None, "high": None, "scored": 0, "unscored": 4}
    drawn = page.strip([page.Mark(known, "a"), page.Mark(none, "b")], middle=0.5)
    assert "<circle cx=50.00%" in drawn and "x1=25.50% x2=99.00%" in drawn and drawn.count("<circle") == 1
    assert page.strip([page.Mark(known, "a")], least=0.5, most=0.5).count("<circle cx=1.00%") == 1
    assert page.cell(none) == "– <small>4 left out</small>" and page.cell(known, 1) == "0.5 <small>[0.2, 1.0]</small>"


@pytest.mark.parametrize("second", [False, True])
def test_a_page_of_turns_shows_policy_and_expert(tmp_path, second):
    replies = [Reply(turn_id=TURNS[0].id, sample=0, text=f"Which city? {TRICK}"), *REPLIES[1:]]
    grades = graded(TURNS, replies, WordGrader(), stop_marker=STOP)
    expert = graded(TURNS, expert_replies(TURNS), WordGrader(), stop_marker=STOP)
    given = figures(TURNS, grades), figures(TURNS, expert)
    made = report.build(given[0], expert=given[1], agreement=None, reader=given[1] if second else None, counts={})
    html = inert(turn_page.html(made, TURNS, grades, recipe=recipe_of(tmp_path)))
    assert html.count("<svg class=strip") == 7 and html.count("<details>") == 1 + len(TURNS)
    assert "Still to find out: city, time; known: nothing" in html and "Still to find out: not known" in html
    assert ("The reader" in html) == second and "The second grader" not in html
