"""Facts picked by a sentence encoder: the right one wins, by vectors made by hand and by a model made on the spot."""

import asyncio

import numpy as np
import pytest
from interview_examples import FACTS, case_of, cases_in, recipe_of

from askwell import recipes, runs
from askwell.cli import main
from askwell.errors import RecipeError
from askwell.evaluation import interviews as stage
from askwell.interview import patients
from askwell.interview.patients import EmbeddingPatient
from askwell.interview.talk import Meter
from askwell.records import Episode
from encoder_examples import encoder_in


class ByHand:
    """Vectors in a plane: facts at 0, 60 and 90 degrees, a question at the angle that it names."""

    def __init__(self):
        self.asked = 0

    def vectors(self, texts, kind):
        self.asked += kind == "passage"
        angles = [0, 60, 90] if kind == "passage" else [float(text) for text in texts]
        return np.array([(np.cos(np.radians(a)), np.sin(np.radians(a))) for a in angles], dtype=np.float32)


def says(question, *, near=0.5, most=None, encoder=None, case=None):
    patient = EmbeddingPatient(encoder or ByHand(), near, most, 0)
    return asyncio.run(patient.answer(case or case_of(), [], question, Meter()))


@pytest.mark.parametrize(
    ("question", "fields", "facts"),
    [
        ("10", {}, (FACTS[0], FACTS[1])),
        ("10", {"near": 0.9}, (FACTS[0],)),
        ("80", {}, (FACTS[1], FACTS[2])),
        ("80", {"most": 1}, (FACTS[2],)),
        ("70", {"most": 1}, (FACTS[1],)),
        ("180", {}, ()),
    ],
)
def test_the_facts_nearest_to_the_question_are_said_in_the_order_of_the_record(question, fields, facts):
    said = says(question, **fields)
    assert said.revealed == facts and said.invented == 0
    assert said.answer == " ".join(facts) or said.answer in patients.talk()["refusals"]


def test_facts_are_made_vectors_of_once_and_who_has_none_says_so():
    encoder = ByHand()
    patient = EmbeddingPatient(encoder, 0.5, None, 0)
    for _ in range(3):
        asyncio.run(patient.answer(case_of(), [], "10", Meter()))
    assert encoder.asked == 1
    assert says("10", case=case_of(facts=())).answer in patients.talk()["refusals"]


QUESTIONS = {"when did the pain begin?": 0, "do you have a fever?": 1, "any aspirin?": 2}


def test_a_model_made_on_the_spot_finds_the_fact_that_shares_its_words(tmp_path):
    folder = encoder_in(tmp_path / "encoder", [*FACTS, *QUESTIONS], layers=0)
    patient = recipes.Patient(kind="embeddings", encoder=str(folder), near=0.1, most=1)
    who = patients.of(patient, seed=0)
    for question, place in QUESTIONS.items():
        said = asyncio.run(who.answer(case_of(facts=tuple(map(str.lower, FACTS))), [], question, Meter()))
        assert said.revealed == (FACTS[place].lower(),)


def test_interviews_with_it_need_no_endpoint(tmp_path):
    folder = encoder_in(tmp_path / "encoder", [*FACTS, *patients.talk()["questions"]])
    cases = cases_in(tmp_path, [case_of(str(number)) for number in range(5)])
    fields = {"policy": "random", "asker": None, "decision": None, "abstention": None, "bounds": False}
    patient = {"kind": "embeddings", "encoder": str(folder), "near": -0.99}
    recipe = recipe_of(cases, tmp_path / "run", patient=patient, **fields)
    with runs.start(recipe, "evaluate interviews", inputs=stage.inputs(recipe)) as run:
        run.finish(stage.run(recipe, run, {}))
    episodes = list(runs.records_of(run.path, Episode, made_by="askwell evaluate interviews"))
    revealed = [set(entry.revealed) for episode in episodes for entry in episode.exchanges]
    assert revealed and all(facts == set(FACTS) for facts in revealed)
    assert str(folder) in (run.path / "provenance.json").read_text()


def test_an_encoder_goes_with_its_kind_alone(tmp_path):
    with pytest.raises(ValueError, match="needs one: `--patient.encoder NAME`"):
        recipes.Patient(kind="embeddings")
    with pytest.raises(ValueError, match="takes none"):
        recipes.Patient(kind="lexical", encoder="x")
    with pytest.raises(RecipeError, match="holds no config.json"):
        patients.texts(recipes.Patient(kind="embeddings", encoder=str(tmp_path)))


def test_without_the_library_it_is_one_line(tmp_path, monkeypatch, capsys):
    cases = cases_in(tmp_path, [case_of()])
    found = patients.importlib.util.find_spec
    monkeypatch.setattr(patients.importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    call = ["evaluate", "interviews", "--cases", str(cases), "--policy", "random", "--patient.kind", "embeddings"]
    assert main([*call, "--patient.encoder", "x", "--output", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert "'torch' is not installed; it comes with the extra `train`" in told and len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()
