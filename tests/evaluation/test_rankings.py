"""Sheets that people fill in, and what is read from them."""

import csv
import io
import json
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askwell import jsonl, recipes, runs
from askwell.cli import main
from askwell.errors import DataError
from askwell.evaluation import ranking_sheets, rankings
from askwell.evaluation.ranking_page import page
from askwell.evaluation.rankings import pearson, rank_of
from askwell.evaluation.winrates import swapped
from askwell.records import Comparison, Message, ReplySet, Screening, SheetItem

SYSTEMS = ("human", "base", "dpo", "ppo", "coarse", "fused")
BEST = {name: place for place, name in enumerate(SYSTEMS)}
"""How good each system is, the first the best: by this all raters rank here."""


def question(system, i):
    return f'=HYPERLINK("x") {system} {i}?' if system == "base" else f"<b>{system}</b> number {i}?"


@pytest.fixture
def evaluated(tmp_path):
    """An evaluation of six systems at forty contexts, whose judge knows the order but for every tenth pair."""
    folder = tmp_path / "questions"
    folder.mkdir()
    sets, judged = [], []
    for i in range(40):
        context = (Message(role="user", content=f"It hurts, number {i}.\nsheet,item"),)
        replies = {name: question(name, i) for name in SYSTEMS}
        if i == 0:
            replies["dpo"] = replies["ppo"]  # the same question from two systems
        if i == 1:
            replies["dpo"] = "<stop />"
        sets.append(ReplySet(id=f"c{i}", group=f"p{i // 2}", context=context, replies=replies))
        for a in SYSTEMS:
            for b in SYSTEMS[BEST[a] + 1 :]:
                score = 0.0 if (i + BEST[b]) % 10 == 0 else 1.0
                judged.append(
                    Comparison(
                        reply_set_id=f"c{i}", group=f"p{i // 2}", attribute="overall", first=a, second=b, score=score
                    )
                )
    jsonl.write(folder / "replies.jsonl", sets)
    jsonl.write(folder / "records.jsonl", judged)
    (folder / "recipe.json").write_text(json.dumps({"command": "evaluate questions", "stop_marker": "<stop />"}))
    (folder / "manifest.json").write_text("{}")
    tests = [
        Screening(
            id=f"known {i}",
            context=(Message(role="user", content="My chest hurts."),),
            questions=("Into the arm?", "A pet?", "Glasses?"),
            best=0,
            points=1 + (i == 0),
        )
        for i in range(3)
    ]
    jsonl.write(tmp_path / "screening.jsonl", tests)
    return folder


def sheets(evaluated, **fields):
    given = {"input": evaluated, "output": evaluated.parent / "sheets", "contexts": 30, **fields}
    recipe = recipes.ReviewSampleRecipe.model_validate({"screening": evaluated.parent / "screening.jsonl", **given})
    counts = runs.carry_out(ranking_sheets, recipe, "review sample")
    return recipe.output, counts, list(jsonl.read(recipe.output / "key.jsonl", SheetItem))


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


def rank(item, letter):
    """What a rater who knows puts there: ranks among the questions of the item."""
    if item.best:
        return 1 if letter == item.best else 2
    return 1 + min(BEST[name] for name in item.systems[letter])


def fill(folder, output, key, number, name, *, rank=rank, encoding="utf-8-sig", delimiter=","):
    """The filled sheet of a rater."""
    rows = rows_of(folder / f"sheet_{number}.csv")
    items = {item.item: item for item in key if item.sheet == number}
    for row in rows:
        row["rank"] = rank(items[int(row["item"])], row["letter"])
    output.mkdir(exist_ok=True)
    with (output / f"{name}.csv").open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def read(folder, filled, **fields):
    recipe = recipes.ReviewReadRecipe.model_validate(
        {"input": folder, "filled": filled, "output": folder.parent / "people", **fields}
    )
    runs.carry_out(rankings, recipe, "review read")
    return rankings.load(recipe.output), list(jsonl.read(recipe.output / "records.jsonl", Comparison))


def test_sheets_are_blind_balanced_and_shuffled(evaluated):
    folder, counts, key = sheets(evaluated)
    once = {item.reply_set_id: item for item in key if not item.best}
    assert len(once) == counts["contexts"] == 30
    assert all(len({n for names in item.systems.values() for n in names}) >= 5 for item in once.values())
    assert all(len(item.questions) <= 5 for item in once.values())
    shown = Counter(name for item in once.values() for names in item.systems.values() for name in names)
    assert max(shown.values()) - min(shown.values()) <= 2  # two contexts have fewer questions to choose among
    assert Counter(Counter(item.reply_set_id for item in key if not item.best).values()) == {2: 30}
    assert Counter(item.sheet for item in key) == dict.fromkeys((1, 2, 3, 4), 18)
    shared = Counter(tuple(sorted(i.sheet for i in key if i.reply_set_id == name)) for name in once)
    assert len(shared) > 2 and all(one != other for one, other in shared)  # not always the same two raters
    assert Counter(item.sheet for item in key if item.best) == {1: 3, 2: 3, 3: 3, 4: 3}
    first = [item for item in key if item.sheet == 1]
    assert [item.item for item in first] == list(range(1, len(first) + 1))
    # No letter and no place belongs to a system or to the screening.
    letters = Counter(letter for item in key for letter, names in item.systems.items() if "human" in names)
    assert len(letters) == 5 and {item.best for item in key if item.best} == {"A", "B", "C"}
    assert not all(item.best for item in first[-3:])
    for name in ("sheet_1.csv", "sheet_1.html"):
        text = (folder / name).read_text()
        assert "known 0" not in text and "c12" not in text and "points" not in text
    texts = [question for item in key for question in item.questions.values()]
    assert not any(text.startswith("<stop") for text in texts)


def test_foreign_text_does_nothing_in_a_spreadsheet_or_on_the_page(evaluated):
    folder, _, _ = sheets(evaluated)
    raw = (folder / "sheet_1.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    assert not any(row[column].startswith("=") for row in rows_of(folder / "sheet_1.csv") for column in row)
    page = (folder / "sheet_1.html").read_text()
    assert "<b>human" not in page and "&lt;b&gt;human" in page
    assert "default-src 'none'" in page and "http" not in page.replace("http-equiv", "")


def test_people_who_know_are_read_as_they_ranked(evaluated, tmp_path):
    folder, _, key = sheets(evaluated)
    # As spreadsheets of several countries save them.
    fill(folder, tmp_path / "filled", key, 1, "ann")
    fill(folder, tmp_path / "filled", key, 2, "bob", delimiter=";", encoding="utf-8")
    fill(
        folder, tmp_path / "filled", key, 3, "cem", delimiter="\t", rank=lambda item, letter: f"{rank(item, letter)}.0"
    )
    fill(folder, tmp_path / "filled", key, 4, "dia", rank=lambda item, letter: f" {rank(item, letter)} ")
    report, rows = read(folder, tmp_path / "filled")
    same = [row for row in rows if row.reply_set_id == "c0" and {row.first, row.second} == {"dpo", "ppo"}]
    assert {row.score for row in same} <= {0.5}
    for row in rows:
        if {row.first, row.second} != {"dpo", "ppo"} and row.reply_set_id not in ("c0",):
            assert row.score == float(BEST[row.first] < BEST[row.second])
    order = list(report["strengths"])
    assert (order[0], order[-1]) == ("human", "fused")
    assert report["raters_agree"]["Fleiss' kappa"]["value"] == pytest.approx(1)
    assert report["raters"]["ann"]["screening"] == 4 and report["counts"]["raters who failed the screening"] == 0
    # The judge is wrong about every tenth pair, always to the second's advantage.
    assert 0.7 < report["with_judge"]["equal"]["value"] < 0.97
    assert report["with_judge"]["win_rates"]["value"] > 0.9 and report["with_judge"]["win_rates"]["scored"] == 15
    assert 0.5 < report["with_judge"]["kappa"]["low"] < report["with_judge"]["kappa"]["value"] < 0.95
    page = (tmp_path / "people" / "report.md").read_text()
    assert "| bob | 2 |" in page and "fused against human" in page


def test_who_fails_the_screening_is_left_out_and_counted(evaluated, tmp_path):
    folder, _, key = sheets(evaluated)
    fill(folder, tmp_path / "filled", key, 1, "ann")
    # Whoever puts the same rank everywhere has ranked no best question first alone.
    fill(folder, tmp_path / "filled", key, 2, "bot", rank=lambda item, letter: 1)
    # Two points of four: the passing share decides.
    fill(
        folder,
        tmp_path / "filled",
        key,
        3,
        "cem",
        rank=lambda item, letter: rank(item, letter) if item.points != 1 else 3 - rank(item, letter),
    )
    report, rows = read(folder, tmp_path / "filled")
    assert {name: row["screening"] for name, row in report["raters"].items()} == {"ann": 4, "bot": 0, "cem": 2}
    assert [name for name, row in report["raters"].items() if not row["passed"]] == ["bot"]
    assert {row.reasons[0] for row in rows} == {"ann", "cem"}
    stricter, _ = read(folder, tmp_path / "filled", output=tmp_path / "strict", passing=0.75)
    assert stricter["counts"]["raters who failed the screening"] == 2


def test_what_is_not_ranked_is_unscored_and_never_lost(evaluated, tmp_path):
    folder, _, key = sheets(evaluated, screening=None)

    def some(item, letter):
        if item.item == 1:
            return ""
        if item.item == 2:
            return "best" if letter == "A" else rank(item, letter)
        return rank(item, letter)

    fill(folder, tmp_path / "filled", key, 1, "ann", rank=some)
    report, rows = read(folder, tmp_path / "filled")
    unscored = Counter(row.unscored for row in rows if row.score is None)
    sizes = {item.item: sum(map(len, item.systems.values())) for item in key if item.sheet == 1}
    assert unscored["not ranked"] == sizes[1] * (sizes[1] - 1) // 2
    assert unscored["rank is no number"] >= sizes[2] - 1
    assert report["raters"]["ann"]["ranked"] == report["raters"]["ann"]["items"] - 1
    assert report["raters_agree"]["Fleiss' kappa"]["value"] is None  # nobody else ranked


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("item,letter,rank\n1,A,1\n", "no column sheet"),
        ("sheet,item,letter,rank\n1,1,A,1\n2,1,A,1\n", "rows of 2 sheets"),
        ("sheet,item,letter,rank\n1,x,A,1\n", "row 2: sheet '1', item 'x'"),
        ("sheet,item,letter,rank\n9,1,A,1\n", "sheet 9 is none of"),
        ("sheet,item,letter,rank\n1,1,A,1\n1,1,a,2\n", "row 3: item 1 has question a twice"),
        ("sheet,item,letter,rank\n1,999,A,1\n", "no question A at item 999; is it a sheet of another"),
    ],
)
def test_a_file_that_is_no_sheet_is_refused(evaluated, tmp_path, text, says):
    folder, _, _ = sheets(evaluated)
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "ann.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        read(folder, tmp_path / "filled")


def test_no_files_are_refused_in_one_line(evaluated, tmp_path, capsys):
    folder, _, _ = sheets(evaluated)
    call = [
        "review",
        "read",
        "--input",
        str(folder),
        "--filled",
        str(tmp_path / "none"),
        "--output",
        str(tmp_path / "p"),
    ]
    assert main(call) == 2 and "one file a rater" in capsys.readouterr().err


def test_what_was_filled_in_shows_on_the_same_sheet_alone(evaluated):
    """A browser keeps it under the sheet's mark: another sample of the same contexts has another."""
    _, _, key = sheets(evaluated)
    other = [item.model_copy(update={"questions": {**item.questions, "A": "Another one?"}}) for item in key]
    marks = [re.findall('data-key="([0-9a-f]+)"', page(side, 1, "", ())) for side in (key, key, other)]
    assert marks[0] == marks[1] != marks[2]


def test_ranks_as_people_write_them():
    assert [rank_of(text) for text in ("1", "12", "3.0", "2,0", "0", "-1", "first", "", "1-2", "²")] == [
        *(1, 12, 3, 2, None, None, None, None, None, None)
    ]


def test_pearson_against_numpy():
    draw = np.random.default_rng(0)
    one, other, times = draw.normal(size=20), draw.normal(size=20), draw.integers(0, 3, size=20)
    found = pearson(one[None], other[None], times[None].astype(float))[0]
    assert found == pytest.approx(np.corrcoef(np.repeat(one, times), np.repeat(other, times))[0, 1])
    assert np.isnan(pearson(np.ones((1, 3)), np.arange(3.0)[None], np.ones((1, 3)))[0])


RANK = st.sampled_from(["1", "2", "3", "", "first", "2.0"])
SHEET = st.lists(st.tuples(st.tuples(RANK, RANK, RANK), st.booleans()), min_size=1, max_size=5)


@settings(max_examples=10)
@given(st.lists(SHEET, min_size=1, max_size=3))
def test_j6_win_rates_by_people_are_those_of_a_brute_force_reading(sheets):
    """Zeros, ties and what is missing, over raters who rank the same items; a and b may say the same."""
    key, filled = [], []
    for number, entries in enumerate(sheets, start=1):
        ranks = {}
        for place, (written, same) in enumerate(entries, start=1):
            systems = {"A": ("a", "b"), "B": ("c",)} if same else {"A": ("a",), "B": ("b",), "C": ("c",)}
            questions = {letter: f"{letter}?" for letter in systems}
            names = {"reply_set_id": f"r{place}", "group": f"g{place}"}
            key.append(SheetItem(sheet=number, item=place, context=(), questions=questions, systems=systems, **names))
            ranks |= {(place, letter): text for letter, text in zip(systems, written, strict=False)}
        filled.append(rankings.Filled(f"rater {number}", number, ranks))
    rows = [row for sheet in filled for row in rankings.comparisons(sheet, key)]
    report = rankings.build(rows, [], {}, seed=0)
    for pair in report["pairs"]:
        scores = []
        for entries in sheets:
            for written, same in entries:
                worth = [{"1": 1, "2": 2, "3": 3, "2.0": 2}.get(text) for text in written]
                of = dict(zip("abc", [worth[0], worth[0], worth[1]] if same else worth, strict=True))
                one, other = of[pair["first"]], of[pair["second"]]
                if one is not None and other is not None:
                    scores.append(1 if one < other else 0 if one > other else 0.5)
        figure = pair["win_rate"]
        assert figure["value"] == (pytest.approx(sum(scores) / len(scores)) if scores else None)
        assert (figure["scored"], figure["unscored"]) == (len(scores), sum(map(len, sheets)) - len(scores))
        assert sum(pair["unscored_by_reason"].values()) == figure["unscored"]


def test_agreement_does_not_depend_on_what_systems_are_called(evaluated, tmp_path):
    """Which of two systems is called the first is an accident of their names; turned round, nothing may change."""
    folder, _, key = sheets(evaluated, screening=None)
    draw = np.random.default_rng(0)

    def unsure(item, letter):
        return rank(item, letter) if draw.random() < 0.7 else int(draw.integers(1, 6))

    for number in range(1, 5):
        fill(folder, tmp_path / "filled", key, number, f"rater {number}", rank=unsure)
    filled = [rankings.read(path) for path in rankings.files(tmp_path / "filled")]
    rows = [row for sheet in filled for row in rankings.comparisons(sheet, key)]
    judged = list(jsonl.read(evaluated / "records.jsonl", Comparison))
    turned = [swapped(row) if row.first < "d" else row for row in rows]
    for figures in (rankings.raters_agree, lambda side: rankings.with_judge(side, judged, seed=0)):
        one, other = figures(rows), figures(turned)
        for name, figure in one.items():
            assert figure == pytest.approx(other[name]), name
    times = Counter((row.reply_set_id, row.first, row.second) for row in rows if row.score is not None)
    assert rankings.raters_agree(rows)["Gwet's AC1"].items == sum(count > 1 for count in times.values())
