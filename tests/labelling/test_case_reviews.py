"""A person's verdicts: what they mean for a case, and that none is taken for another's."""

import csv
import io

import pytest
from case_examples import build, ingested, log, script

from askwell.errors import DataError
from askwell.labelling import case_reviews
from askwell.labelling.case_reviews import COLUMNS, Reading, mark_of, merged
from askwell.records import Case

RIGHT = {"A": "gout", "B": "=a sprain", "C": "arthritis", "D": "an infection"}


def case_of(name="c", **fields):
    values = {"id": name, "group": name, "split": "test", "initial_information": "My toe hurts.", "facts": ("f",)}
    return Case.model_validate({**values, "inquiry": "What is it?", "options": RIGHT, "answer": "A", **fields})


def row(case, answer="", verdict="", **options):
    texts = tuple(options.get(name, text) for name, text in case.options.items())
    return Reading("review.csv: row 2", case.id, mark_of(case), texts, answer, verdict)


def ends(*rows, cases=None):
    cases = cases or [case_of()]
    found = merged({case.id: case for case in cases}, rows, seed=0)
    counts = {name: count for name, count in found.counts.items() if count and name not in ("agreement", "rows")}
    return found.cases, found.removed, counts


def test_a_blind_answer_confirms_or_corrects():
    case = case_of()
    assert ends(row(case, "A")) == ({"c": case}, {}, {"used": 1, "confirmed": 1})
    assert ends(row(case, verdict="accept")) == ({"c": case}, {}, {"used": 1, "confirmed": 1})
    kept, _, counts = ends(row(case, "C"))
    assert kept["c"].answer == "C" and kept["c"].options == case.options
    assert counts == {"used": 1, "answers corrected": 1, "contradict the writer": 1}


def test_what_is_rejected_or_has_no_right_option_is_taken_out():
    for reading in (row(case_of(), verdict="reject"), row(case_of(), "NONE"), row(case_of(), "A", "reject")):
        kept, removed, counts = ends(reading)
        assert kept == {} and removed == {"c": "rejected by a reader"}
        assert counts == {"used": 1, "rejected": 1, "contradict the writer": 1}


def test_an_option_is_mended_by_writing_over_it():
    kept, _, counts = ends(row(case_of(), "A", D="a cellulitis"))
    assert kept["c"].options == {**RIGHT, "D": "a cellulitis"} and kept["c"].answer == "A"
    assert counts == {"used": 1, "options corrected": 1}
    # What a spreadsheet does to a text is no change: the apostrophe before a formula, white space.
    assert ends(row(case_of(), "A", B="'=a   sprain"))[2] == {"used": 1, "confirmed": 1}
    with pytest.raises(DataError, match="row 2: two options are the same"):
        ends(row(case_of(), "A", D="Gout"))
    with pytest.raises(DataError, match="or one is empty"):
        ends(row(case_of(), "A", D=""))


def test_rows_for_nobody_or_for_another_version_are_counted_and_not_used():
    other = case_of(answer="B")
    kept, _, counts = ends(row(case_of("x"), "A"), row(other, "B"), row(case_of()))
    assert kept == {"c": case_of()}
    assert counts == {"unknown": 1, "of another version": 1, "left blank": 1}


def test_readers_who_come_to_different_ends_leave_no_case():
    kept, removed, counts = ends(row(case_of(), "A"), row(case_of(), "B"))
    assert kept == {} and removed == {"c": "readers disagree"} and counts["readers disagree"] == 1
    assert ends(row(case_of(), "A"), row(case_of(), "A"))[2] == {"used": 2, "confirmed": 1}


def test_agreement_is_over_answers_to_options_left_as_they_were():
    cases = [case_of(str(number)) for number in range(4)]
    rows = [row(cases[0], "A"), row(cases[1], "B"), row(cases[2], "A", D="changed"), row(cases[3], "none".upper())]
    agreement = merged({case.id: case for case in cases}, rows, seed=0).counts["agreement"]
    assert agreement["value"] == pytest.approx(1 / 3) and agreement["scored"] == 3


def test_the_sheet_of_a_run_filled_in_and_read_back(tmp_path):
    records = ingested(tmp_path, [log(str(number), outcome="=Gout, by the lab.") for number in range(5)])
    cases, *_ = build(records, tmp_path / "cases")
    text = (tmp_path / "cases" / "review.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS and [entry["case"] for entry in rows] == [case.id for case in cases]
    # Who reads it is not told which option is meant to be right, and no cell is a formula.
    assert {entry["answer"] for entry in rows} == {""} and rows[0]["outcome"] == "'=Gout, by the lab."
    assert "Person: I am 45." in rows[0]["record"]
    wrong = next(letter for letter in "ABCD" if letter != cases[1].answer)
    rows[0]["answer"], rows[1]["answer"], rows[2]["verdict"], rows[3]["case"] = cases[0].answer, wrong, "Reject", "who?"
    rows[3]["verdict"] = "accept"
    with (tmp_path / "filled.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    after, counts, report, mock = build(records, tmp_path / "reviewed", review=tmp_path / "filled.csv")
    assert [case.id for case in after] == ["0", "1", "3", "4"] and after[1].answer == wrong
    assert mock.ledger.paid == 0  # the answers are stored
    review = counts["review"]
    assert (review["used"], review["unknown"], review["left blank"]) == (3, 1, 1)
    assert (review["confirmed"], review["answers corrected"], review["rejected"]) == (1, 1, 1)
    assert report["unscored"] == {"rejected by a reader": 1} and report["review"]["agreement"]["value"] == 0.5
    assert "What people said" in (tmp_path / "reviewed" / "report.md").read_text()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("c,m,a,b,c,d,E,,", "answer 'E' must be one of A, B, C, D, or none"),
        ("c,m,a,b,c,d,,perhaps,", "verdict 'perhaps' must be accept or reject"),
        ("c,m,a,b,c,d,A,,\nc,m,a,b,c,d,B,,", "row 3: case 'c' stands at"),
    ],
)
def test_what_stands_on_no_menu_is_refused_with_its_row(tmp_path, line, says):
    (tmp_path / "r.csv").write_text(f"case,mark,A,B,C,D,answer,verdict,comment\n{line}\n")
    with pytest.raises(DataError, match="r.csv: row") as error:
        case_reviews.readings(tmp_path / "r.csv")
    assert says in str(error.value)


def test_a_path_that_is_no_sheet_is_refused_before_anything_is_asked(tmp_path):
    records = ingested(tmp_path, [log("a")])
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError, match="neither a CSV file nor a folder"):
            build(records, tmp_path / "cases", script(), review=path)
    (tmp_path / "other.csv").write_text("name,age\n")
    with pytest.raises(DataError, match="no column case, mark"):
        build(records, tmp_path / "cases", script(), review=tmp_path / "other.csv")
