"""Patients: what they say, what of the record is in it, and that a model's inventions are caught."""

import asyncio
import json
from collections import Counter

import pytest
from interview_examples import FACTS, case_of, parts_of

from askwell import recipes
from askwell.interview import patients
from askwell.interview.talk import Meter
from askwell.llm.client import Client
from askwell.llm.store import Store
from askwell.llm.transport import InProcess
from askwell.mock_endpoint import MockEndpoint
from askwell.recipes import Endpoint


def answers(tmp_path, questions, *, reply=None, case=None, seed=0, **fields):
    """What a patient says to each question, one after the other."""
    if reply is not None:
        fields["endpoint"] = {"model": "mock", "structured": "json_schema"}
    patient = recipes.Patient.model_validate(fields)

    async def go():
        store = Store(tmp_path / "answers.sqlite")
        transport = InProcess(MockEndpoint(reply or (lambda body: "")).send)
        async with Client(patient.endpoint or Endpoint(model="mock"), store, run="r", transport=transport) as client:
            who = patients.of(patient, seed=seed, client=client)
            said = []
            for question in questions:
                said.append(await who.answer(case or case_of(), said, question, Meter()))
        store.close()
        return said

    return asyncio.run(go())


def test_fact_select_says_facts_word_for_word_and_what_no_fact_says_is_left_out_and_counted(tmp_path):
    def model(body):
        facts = [json.loads(line) for line in parts_of(body)[0].splitlines()]
        return json.dumps({"facts": [facts[1].upper(), "There is a rash.", facts[0]]})

    (said,) = answers(tmp_path, ["Anything?"], reply=model, kind="facts")
    assert said.revealed == (FACTS[0], FACTS[1]) and said.invented == 1
    assert said.answer == f"{FACTS[0]} {FACTS[1]}" and "rash" not in said.answer


def test_fact_select_that_cannot_be_read_says_nothing_and_is_counted(tmp_path):
    (said,) = answers(tmp_path, ["Anything?"], reply=lambda body: "I would rather not.", kind="facts")
    assert said.revealed == () and said.invented == 1 and said.answer in patients.talk()["refusals"]


def test_a_model_in_its_own_words_gives_the_facts_whose_words_it_has(tmp_path):
    def model(body):
        return "It began two days ago, the pain. Also I have a dog."

    (said,) = answers(tmp_path, ["Since when?"], reply=model, kind="instruct")
    assert said.revealed == (FACTS[0],) and said.answer.endswith("a dog.")


@pytest.mark.parametrize(
    ("question", "facts"),
    [
        ("Do you have a fever?", (FACTS[1],)),
        ("When did the pain begin?", (FACTS[0],)),
        ("Do you take any aspirin or other drugs?", (FACTS[2],)),
        ("Do you like music?", ()),
        ("", ()),
    ],
)
def test_without_a_model_facts_answer_that_share_rare_words(tmp_path, question, facts):
    (said,) = answers(tmp_path, [question], kind="lexical")
    assert said.revealed == facts
    assert said.answer == " ".join(facts) or said.answer in patients.talk()["refusals"]


def test_one_answer_gives_at_most_so_many_facts_the_nearest_first(tmp_path):
    question = "Is there fever, and when did the pain begin?"
    (all_of_them,) = answers(tmp_path, [question], kind="lexical", overlap=0.2)
    (one,) = answers(tmp_path, [question], kind="lexical", overlap=0.2, most=1)
    assert set(all_of_them.revealed) == {FACTS[0], FACTS[1]} and len(one.revealed) == 1
    assert one.revealed[0] in all_of_them.revealed


def test_the_random_patient_refuses_every_other_question_and_is_the_same_every_time(tmp_path):
    said = answers(tmp_path, ["?"] * 400, kind="random")
    assert 0.4 < sum(not entry.revealed for entry in said) / 400 < 0.6
    assert set(Counter(entry.answer for entry in said if entry.revealed)) == set(FACTS)
    assert said == answers(tmp_path, ["?"] * 400, kind="random")
    assert said != answers(tmp_path, ["?"] * 400, kind="random", seed=1)


def test_habits_come_at_their_rates_and_a_withheld_answer_gives_nothing(tmp_path):
    said = answers(tmp_path, ["Fever?"] * 1000, kind="lexical", withholds=0.2, rambles=0.3, unsure=0.1)
    shares = {manner: count / 1000 for manner, count in Counter(entry.manner for entry in said).items()}
    assert all(
        abs(shares[name] - rate) < 0.04 for name, rate in {"withheld": 0.2, "rambled": 0.3, "unsure": 0.1}.items()
    )
    for entry in said:
        assert entry.revealed == (() if entry.manner == "withheld" else (FACTS[1],))
        assert entry.manner == "withheld" or FACTS[1] in entry.answer
