"""Reports: figures with their intervals and counts; foreign text cannot act in the markdown."""

import pytest
from evaluation_examples import REPLIES, STOP, TURNS, WordGrader, finished_run, recipe_of, turn
from hypothesis import given
from hypothesis import strategies as st

from askwell import runs
from askwell.errors import DataError
from askwell.evaluation import report
from askwell.evaluation.metrics import MEANING, expert_replies, figures
from askwell.grading.grades import graded
from askwell.records import Reply
from askwell.statistics import Estimate


def report_of(turns=TURNS, replies=REPLIES):
    grades = graded(turns, replies, WordGrader(), stop_marker=STOP)
    expert = graded(turns, expert_replies(turns), WordGrader(), stop_marker=STOP)
    return grades, report.build(
        figures(turns, grades), expert=figures(turns, expert), agreement=None, reader=None, counts={"turns": len(turns)}
    )


def markdown(tmp_path, turns=TURNS, replies=REPLIES, **fields):
    grades, value = report_of(turns, replies)
    return report.markdown(value, turns, grades, recipe=recipe_of(tmp_path, **fields))


def test_written_and_loaded_again(tmp_path):
    path = finished_run(tmp_path / "out", "evaluate turns")
    _, value = report_of()
    runs.write_json(path / "report.json", value)
    assert report.load(path) == value
    assert value["figures"]["WA"] == {"value": 0.75, "low": None, "high": None, "scored": 2, "unscored": 3}
    with pytest.raises(DataError, match="evaluate turns"):
        report.load(finished_run(tmp_path / "label", "label"))


def test_table_has_a_row_a_report_and_the_papers_columns():
    _, value = report_of()
    lines = report.table({"base": value["figures"], "ours | theirs": value["expert"]}).splitlines()
    assert lines[0] == "| | WA | WA-GH | WC | WS | AA | FC | TR | unscored |"
    assert lines[2].startswith("| base | 0.750 | 0.500 | 0.833 [0.750, 1.000] |")
    assert lines[3].startswith(r"| ours \| theirs | 1.000 [1.000, 1.000] |")
    assert len(lines) == 4


def test_cell_without_interval_or_value():
    assert report.cell(Estimate(0.5, None, None, 3, 0)._asdict()) == "0.500"
    assert report.cell(Estimate(None, None, None, 0, 3)._asdict()) == "–"


def test_markdown_names_every_figure_with_its_meaning_and_counts(tmp_path):
    lines = markdown(tmp_path).splitlines()
    for name, meaning in MEANING.items():
        (line,) = (line for line in lines if line.startswith(f"| {name} |"))
        assert line.endswith(f"| {meaning} |")
    assert any(line.startswith("| TR | 2.500 [") and "| 4.000 [4.000, 4.000] | 7 | 3 |" in line for line in lines)
    assert "- turns: 5" in lines


def test_sampled_turns_show_what_a_reader_needs(tmp_path):
    text = markdown(tmp_path, shown=5)
    assert "\n## Sampled turns\n" in text
    assert text.count("\n### ") == 5
    section = text[text.index("### b#0") : text.index("### b#1")]
    assert "- user: I am hungry." in section
    assert "- **expert** (asks): What time, and which city?" in section
    assert r"- **policy**: \<stop />" in section
    assert "- still to find out: city, time; known: nothing" in section
    assert "- decision 0, content 0, format 0, reward 0: stopped where the expert asked" in section
    assert "- still to find out: not known; known: time" in text
    assert "content unscored, format 1, reward unscored: unscored: the truth names no facts" in text
    assert markdown(tmp_path, shown=0).count("\n### ") == 0


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 3))
def test_sampled_turns_are_of_both_kinds_in_order_by_seed(continues, stops, count, seed):
    turns = [turn(f"c{i}#{i}", "continue" if i < continues else "stop") for i in range(continues + stops)]
    chosen = report.pick(turns, count, seed=seed)
    assert chosen == report.pick(turns, count, seed=seed)
    assert len(chosen) == len({t.id for t in chosen}) == min(count, len(turns))
    assert chosen == [t for t in turns if t in chosen]
    kinds = [t.target.decision for t in chosen if t.target]
    if continues >= count and stops >= count:
        assert abs(kinds.count("stop") - kinds.count("continue")) <= 1


def test_seed_moves_the_sample():
    turns = [turn(f"c{i}#0", "stop") for i in range(100)]
    assert report.pick(turns, 10, seed=0) != report.pick(turns, 10, seed=1)


@given(st.text(max_size=60) | st.text(alphabet="`|<>[]\\*\n\r\u2028\x1b\u202e a", max_size=60))
def test_foreign_text_is_one_line_in_which_nothing_acts(text):
    plain = report.plain(text)
    assert len(plain.splitlines()) <= 1
    assert plain.isprintable()
    unescaped = plain.replace("\\\\", "")
    for active in "`|<[]*":
        assert unescaped.count(active) == unescaped.count("\\" + active) == text.count(active)


def test_forged_lines_and_cells_stay_text(tmp_path):
    forged = "Fine.\n\n# TR 4.0\n| TR | 4 |\n```\n<img src=x> ![](http://x)"
    turns = [t.model_copy(update={"expert_reply": forged}) for t in TURNS]
    text = markdown(tmp_path, turns, [Reply(turn_id=t.id, sample=0, text=forged) for t in turns], shown=5)
    assert "\n# TR" not in text
    assert text.count("\n| TR |") == 1
    assert "<img" not in text.replace(r"\<img", "")
    assert "\n```" not in text


def test_lines_are_joined_by_a_blank():
    assert report.plain(" Which\n\n city?\t") == "Which city?"


def test_long_text_is_cut():
    assert len(report.plain("x" * 5000)) == report.LONGEST_TEXT + 2
