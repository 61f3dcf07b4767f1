"""Interviews: who speaks when, how one ends, and that the clinic's patients tell the truth."""

import asyncio
import random

import pytest

from askwell import recipes, runs
from askwell.clinic.language import sentences, talk
from askwell.clinic.logs import SKILLS
from askwell.clinic.reasoning import Reference
from askwell.errors import RecipeError
from askwell.evaluation import interviews as stage
from askwell.interview.clinic import (
    AsyncClinicPatient,
    ClinicPatient,
    ExactDecisionMaker,
    SpeakingAsker,
    answers_in,
    visitors,
)
from askwell.interview.loop import Answer, interviews
from askwell.interview.talk import Meter, Said
from askwell.records import Case, Episode


class Script:
    """Says its lines, the same in every conversation."""

    def __init__(self, *lines):
        self.lines = lines

    def replies(self, conversations):
        return [self.lines[(len(messages) - 1) // 2] for messages in conversations]


class Patient:
    def answer(self, question):
        return Answer(f"You ask: {question}", (question,))


class Counter:
    """Chooses `yes` once two facts are known."""

    def choose(self, case, revealed):
        return ("yes", 0.9) if len(revealed) >= 2 else ("no", 0.6)


CASE = Case(
    id="c",
    group="c",
    split="test",
    initial_information="It hurts.",
    facts=("a", "b"),
    inquiry="Well?",
    options={"yes": "yes", "no": "no"},
    answer="yes",
)


def held(asker, most=4):
    (episode,) = interviews([CASE], [Patient()], asker, Counter(), most=most)
    return episode


def test_an_interview_ends_by_the_askers_own_marker():
    episode = held(Script("A?", "B?", "<stop />"))
    assert [(e.question, e.answer, e.choice) for e in episode.exchanges] == [
        ("A?", "You ask: A?", "no"),
        ("B?", "You ask: B?", "yes"),
    ]
    assert (episode.first_choice, episode.decision, episode.end) == ("no", "yes", "stopped")


def test_an_interview_ends_after_enough_questions_and_a_marker_inside_a_text_ends_nothing():
    episode = held(Script(*["Say <stop /> or what?"] * 4), most=3)
    assert len(episode.exchanges) == 3 and episode.end == "most questions"
    assert episode.decision == "no"  # the same fact three times is one


def test_stopping_at_once_decides_by_the_opening():
    assert held(Script("<stop />")).decision == "no"


def test_patients_tell_the_truth_about_what_they_are_asked_and_no_more(world, oracle):
    draw = random.Random(0)
    for visitor in visitors(world, 40, seed=3):
        patient = ClinicPatient(world, oracle, visitor)
        finding = draw.choice(world.findings)
        answer = patient.answer(draw.choice(finding.questions.good))
        present = bool(visitor.truth.present[world.place[finding.id]])
        assert oracle.statements(answer.text) == {finding.id: present} == answers_in(answer.revealed)
        idle = patient.answer(draw.choice(talk()["irrelevant"]))
        assert idle.revealed == () and patient.answer("Blorp?").revealed == ()


def test_visitors_are_reproducible_and_say_who_they_are(world, oracle):
    one, other = (visitors(world, 20, seed=1) for _ in range(2))
    assert [visitor.case for visitor in one] == [visitor.case for visitor in other]
    for visitor in one:
        assert oracle.statements(visitor.case.initial_information)
        assert visitor.case.options[visitor.case.answer]


def test_visitors_of_test_use_words_that_no_log_for_training_has(world, oracle):
    kept = {text for finding in world.findings for text in (finding.yes[-1], finding.no[-1])}

    def said(split):
        people = visitors(world, 60, seed=2, split=split)
        patients = [ClinicPatient(world, oracle, visitor) for visitor in people[:10]]
        answers = [patient.answer("Do you have a fever?").text for patient in patients]
        return [sentence for visitor in people for sentence in sentences(visitor.case.initial_information)[1:]], answers

    told, answers = said("test")
    assert {*told, *answers} <= kept
    told, answers = said("dev")
    assert not {*told, *answers} & kept


def test_the_reference_reads_the_conversation_and_asks_what_it_does_not_know(world, oracle):
    people = visitors(world, 15, seed=5)
    asker = SpeakingAsker(world, oracle, Reference(cost=0.01))
    patients = [ClinicPatient(world, oracle, visitor) for visitor in people]
    cases = [visitor.case for visitor in people]
    for episode in interviews(cases, patients, asker, ExactDecisionMaker(world, oracle), most=8):
        asked = [fact for exchange in episode.exchanges for fact in answers_in(exchange.revealed)]
        assert len(asked) == len(set(asked))


def evaluated(tmp_path, **fields):
    recipe = recipes.EvaluateInterviewsRecipe(output=tmp_path / "run", **{"limit": 30, "most": 6, **fields})
    with runs.start(recipe, "evaluate interviews", inputs=stage.inputs(recipe)) as run:
        counts = stage.run(recipe, run)
        run.finish(counts)
    return counts


def test_a_run_leaves_episodes_and_a_report_with_its_bounds(tmp_path):
    counts = evaluated(tmp_path, policy="clinic:myopic")
    episodes = list(runs.records_of(tmp_path / "run", Episode, made_by="askwell evaluate interviews"))
    assert len(episodes) == 30 and counts["questions"] == sum(len(episode.exchanges) for episode in episodes)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "clinic:reference" in report and "everything known" in report and "invented world" in report
    found = stage.load(tmp_path / "run")
    best = [point["value"] for point in found["best possible"]]
    assert len(best) == 7 and best[0] == found["figures"]["curve"][0]["value"] < best[6] <= 1
    assert "| questions | clinic:myopic | clinic:reference | clinic:random | best possible |" in report


def test_asking_well_beats_asking_at_random(tmp_path):
    well = evaluated(tmp_path / "well", policy="clinic:reference", limit=40, bounds=False)
    badly = evaluated(tmp_path / "badly", policy="clinic:random", limit=40, bounds=False)
    assert well["accuracy"] > badly["accuracy"] + 0.05 and well["mean questions"] < badly["mean questions"]


def test_better_experts_ask_better(tmp_path):
    found = {
        name: evaluated(tmp_path / name, policy=f"clinic:{name}", limit=30, most=12, bounds=False)
        for name in ("expert", "novice")
    }
    assert found["expert"]["accuracy"] > found["novice"]["accuracy"]
    assert found["novice"]["mean questions"] <= SKILLS["novice"].most


def test_an_asker_that_the_clinic_does_not_have_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no asker 'wise'; known: reference"):
        evaluated(tmp_path, policy="clinic:wise")


def test_a_patient_asked_side_by_side_says_what_one_in_lockstep_says(world, oracle):
    people = visitors(world, 6, seed=8)
    alone = AsyncClinicPatient(world, oracle, people)
    draw = random.Random(1)
    for visitor in people:
        patient, said = ClinicPatient(world, oracle, visitor), []
        for number in range(5):
            question = draw.choice(draw.choice(world.findings).questions.vague)
            if number == 2:
                said.append(Said(question, "No.", manner="withheld"))
                continue
            said.append(asyncio.run(alone.answer(visitor.case, tuple(said), question, Meter())))
            assert said[-1][1:3] == patient.answer(question)
