"""MediQ's and ALFA's multiple-choice files: what is a case, what is none, and the published files as they are."""

import json
from collections import Counter
from pathlib import Path

import pytest

from askwell import recipes, runs
from askwell.errors import DataError
from askwell.records import Case
from askwell.sources import cases as stage
from askwell.sources import mediq
from askwell.sources.drafts import Rejected

DATA = Path(__file__).parents[3] / "shared" / "data" / "mediq"
ROW = {
    "id": 7,
    "question": "What is it?",
    "context": ["A man of 30 has a sore foot.", "It began last night."],
    "options": {"A": "Gout ", "B": "A sprain"},
    "answer": "Gout",
    "answer_idx": "A",
    "facts": ["1. He is 30.", "2. It began last night.", "2. It began last night."],
}
POST = {
    "id": "t_x-0",
    "question": "What to do?",
    "context": "My foot hurts.\n\nDoctor Question: Since when?\nPatient Response: Last night.",
    "options": {"A": "Rest", "B": "Run"},
    "answer": "Rest",
    "answer_idx": "A",
    "atomic_facts": ["The foot hurts. "],
    "initial_info": "I am dizzy.",
    "original_post": "My foot hurts.",
}


def read(tmp_path, *rows, **options):
    path = tmp_path / "part.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return list(mediq.read(path, name="part.jsonl", **options))


def test_a_case_opens_with_its_first_sentence(tmp_path):
    (case,) = read(tmp_path, ROW)
    assert case == Case(
        id="part/7",
        group="part/7",
        split="test",
        initial_information="A man of 30 has a sore foot.",
        facts=("He is 30.", "It began last night."),
        inquiry="What is it?",
        options={"A": "Gout", "B": "A sprain"},
        answer="A",
        record="A man of 30 has a sore foot.\nIt began last night.",
    )


def test_a_post_opens_with_itself_or_as_released_with_an_invented_complaint(tmp_path):
    (case,) = read(tmp_path, POST)
    (released,) = read(tmp_path, POST, compat="as_released")
    assert (case.initial_information, released.initial_information) == ("My foot hurts.", "I am dizzy.")
    assert case.facts == ("The foot hurts.",) and case.record.startswith("My foot hurts.")
    one, other = read(tmp_path, POST, {**POST, "id": "t_x-1"})
    assert one.group == other.group == case.group and one.id != other.id


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**ROW, "context": ["One."]}, "nothing to ask"),
        ({**ROW, "context": []}, "nothing to ask"),
        ({**ROW, "options": {"A": "x"}}, "no options"),
        ({**ROW, "options": {"A": "x", "B": "x "}}, "options alike"),
        ({**ROW, "answer_idx": "Q", "answer": "Flu"}, "no answer"),
        ({**ROW, "question": " "}, "no question"),
        ({**ROW, "facts": "He is 30."}, "field is not a list of texts"),
        ('{"id": 1', "malformed JSON"),
        ("[1]", "not an object"),
    ],
)
def test_what_is_no_case_is_rejected_with_its_place(tmp_path, row, reason):
    (found,) = read(tmp_path, row)
    assert isinstance(found, Rejected) and (found.reason, found.where) == (reason, "part.jsonl:1")


def test_cases_with_nothing_to_ask_may_be_kept(tmp_path):
    one, none = read(tmp_path, {**ROW, "context": ["One."]}, {**ROW, "id": 8, "context": []}, keep=True)
    assert (one.initial_information, none.initial_information) == ("One.", "")


def test_the_letter_counts_and_where_it_is_missing_the_text(tmp_path):
    by_letter, by_text = read(tmp_path, {**ROW, "answer": "Podagra"}, {**ROW, "id": 8, "answer_idx": None})
    assert by_letter.answer == by_text.answer == "A"


def written(tmp_path, source, **fields):
    recipe = recipes.CasesReadRecipe(input=source, output=tmp_path / "run", **fields)
    with runs.start(recipe, "cases read", inputs=stage.inputs(recipe)) as run:
        counts = stage.run(recipe, run)
        run.finish(counts)
    return counts, list(runs.records_of(run.path, Case, made_by="askwell cases read"))


def test_too_many_faults_end_the_stage_and_what_has_nothing_to_ask_is_no_fault(tmp_path):
    rows = [{**ROW, "id": number} for number in range(9)] + [{**ROW, "id": 9, "context": []}]
    (tmp_path / "good.jsonl").write_text("\n".join(map(json.dumps, rows)))
    counts, cases = written(tmp_path, tmp_path / "good.jsonl")
    assert len(cases) == 9 and counts["rejected"] == {"nothing to ask": 1}
    (tmp_path / "bad.jsonl").write_text("\n".join([*map(json.dumps, rows), "{}"]))
    with pytest.raises(DataError, match="1 of 10 lines are no cases"):
        written(tmp_path / "other", tmp_path / "bad.jsonl")


@pytest.mark.skipif(not DATA.is_dir(), reason="the MediQ cases are not at ../shared/data/mediq")
def test_the_published_files_load_whole_or_say_why_not(tmp_path):
    counts, cases = written(tmp_path, DATA)
    assert counts["cases"] == 1700 and counts["rejected"] == {"nothing to ask": 14}
    files = Counter(case.id.split("/")[0] for case in cases)
    assert files == {"all_craft_md": 140, "all_dev_good": 1258, "askdocs_mcq": 302}
    posts = [case for case in cases if case.id.startswith("askdocs")]
    assert len({case.group for case in posts}) == 192
    assert Counter(case.answer for case in posts) == {"C": 157, "B": 98, "D": 43, "A": 4}
    assert all(case.facts and case.record and case.initial_information for case in cases)
