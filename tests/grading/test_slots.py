"""A grader reads what experts ask, whatever its kind; it abstains on what experts never say."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from askwell.errors import DataError, RecipeError
from askwell.grading import convolution
from askwell.grading.slots import SlotGrader
from askwell.grading.utterances import Example, Wording, examples_of, in_fold, joined, wordless, words
from askwell.recipes import GraderRecipe, resolve
from askwell.records import Act, Conversation, Message

ASKS = {
    ("Food_1", "city"): ["Which city should I look in?", "What city are you in?", "In which city do you want to eat?"],
    ("Food_1", "time"): ["What time do you want to eat?", "At what time should I book it?", "For what time?"],
    ("Bus_1", "leaving_from"): ["Which city are you leaving from?", "What city do you leave from?", "From which city?"],
    ("Bus_1", "seats"): ["How many seats do you need?", "For how many people?", "How many tickets should I book?"],
}
TELLS = [
    "Your table is booked for 7 pm.",
    "I found a place in the city of Oakland.",
    "Enjoy your time!",
    "Shall I go on?",
]
OPENINGS = ["", "Sure. ", "Okay! ", "Of course. "]


def corpus():
    """Every question with every opening, in its service, and what is no question in both."""
    examples = []
    for number, opening in enumerate(OPENINGS * 3):
        group = f"group {number}"
        for (service, slot), wordings in ASKS.items():
            examples += [Example(group, "train", service, opening + text, frozenset({slot})) for text in wordings]
        for service in ("Food_1", "Bus_1"):
            examples += [Example(group, "train", service, opening + text, frozenset()) for text in TELLS]
    examples.append(Example("music", "train", "Music_1", "Playing it now.", frozenset()))
    return examples


@pytest.fixture(scope="module", params=["linear", "convolutional"])
def grader(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "STEPS_AT_LEAST", 60)
        fitted = SlotGrader.fit(request.param, corpus(), seed=0)
    fitted.wording.least, fitted.threshold = 0.7, 0.5
    return fitted


def test_reads_each_question_and_that_a_statement_asks_for_nothing(grader):
    for example in corpus()[:-1]:
        assert grader.asked([(example.service, example.text)]) == [example.asks]


def test_the_same_words_ask_for_another_slot_in_another_service(grader):
    city, leaving_from = grader.asked([("Food_1", "Which city?"), ("Bus_1", "Which city?")])
    assert (city, leaving_from) == ({"city"}, {"leaving_from"})


def test_two_questions_in_one_text_ask_for_both(grader):
    assert grader.asked([("Food_1", "Which city should I look in? At what time should I book it?")]) == [
        {"city", "time"}
    ]


@pytest.mark.parametrize("text", ["", "   ", "?", "...", "\n\n", "?!?!"])
def test_a_text_without_a_word_asks_for_nothing(grader, text):
    assert grader.asked([("Food_1", text), ("Unknown_9", text)]) == [frozenset(), frozenset()]


@pytest.mark.parametrize(
    "text",
    [
        "Which city should I look in in in in?",
        "city city city city city",
        "Which city Which city Which city should I look in?",
        "in city look should which I?",
        "city time city people book seats",
        "Xyzzy plugh frotz?",
        "¿Dónde está usted?",
        "どこですか",
        "Which city should I look in? " * 40,
    ],
)
def test_abstains_on_what_experts_never_say(grader, text):
    assert grader.asked([("Food_1", text)]) == [None]


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["city", "time", "which", "what", "book", "?", "you"]), min_size=4, max_size=20))
def test_no_word_said_on_the_spot_again_gets_a_slot(spoken):
    wording = Wording.learn(example.text for example in corpus())
    repeated = [word for word in spoken for _ in range(2)]
    assert wording.share(" ".join(repeated)) == 0


def test_abstains_on_services_it_did_not_learn(grader):
    assert grader.asked([("Unknown_9", "Which city?"), ("Music_1", "Which song should I play?")]) == [None, None]
    assert grader.slots("Unknown_9") == frozenset() == grader.slots("Music_1")
    assert grader.slots("Bus_1") == {"leaving_from", "seats"}
    assert grader.services == ("Bus_1", "Food_1")


def test_the_threshold_decides_what_is_scored(grader, monkeypatch):
    question = ("Food_1", "For what time?")
    ((_, confidence),) = grader.read([question])
    monkeypatch.setattr(grader, "threshold", confidence + 1e-6)
    assert grader.asked([question]) == [None]
    monkeypatch.setattr(grader, "threshold", confidence - 1e-6)
    assert grader.asked([question]) == [{"time"}]


TEXTS = st.text(max_size=60) | st.lists(
    st.sampled_from(["which", "city", "what", "time", "do", "you", "want", "to", "eat", "?"]), max_size=14
).map(" ".join)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["Food_1", "Bus_1", "Music_1", "x"]), TEXTS), max_size=6))
def test_any_text_gets_slots_of_its_service_or_an_abstention_in_any_company(grader, questions):
    asked = grader.asked(questions)
    assert len(asked) == len(questions)
    for (service, text), found in zip(questions, asked, strict=True):
        assert found is None or found <= grader.slots(service)
        if wordless(text):
            assert found == frozenset()
    assert asked == [grader.asked([question])[0] for question in questions]


def test_a_loaded_grader_gives_identical_readings(grader, tmp_path):
    grader.save(tmp_path / "checkpoint")
    loaded = SlotGrader.load(tmp_path / "checkpoint")
    questions = [(example.service, example.text) for example in corpus()] + [("Food_1", "city city"), ("x", "")]
    assert loaded.read(questions) == grader.read(questions)
    assert loaded.asked(questions) == grader.asked(questions)
    assert (loaded.kind, loaded.threshold, loaded.services) == (grader.kind, grader.threshold, grader.services)
    assert all(loaded.slots(service) == grader.slots(service) for service in grader.services)


def test_a_checkpoint_is_json_and_plain_arrays_and_nothing_else(grader, tmp_path):
    grader.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grader.json", "weights.npz"]
    pairs = json.loads((tmp_path / "grader.json").read_text(encoding="utf-8"))["pairs"]
    assert list(pairs) == sorted(pairs) and all(seconds == sorted(seconds) for seconds in pairs.values())
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fi" for name in arrays.files)


def test_saving_twice_gives_the_same_bytes(grader, tmp_path):
    for name in ("first", "second"):
        grader.save(tmp_path / name)
    for file in ("grader.json", "weights.npz"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


@pytest.mark.parametrize("kind", ["linear", "convolutional"])
def test_fitting_again_gives_the_same_grader_whatever_else_draws_at_random(kind, monkeypatch):
    monkeypatch.setattr(convolution, "STEPS_AT_LEAST", 10)
    few = corpus()[:40]
    questions = [(example.service, example.text) for example in few]
    first = SlotGrader.fit(kind, few, seed=3).read(questions)
    torch.rand(1)
    state = torch.random.get_rng_state()
    assert SlotGrader.fit(kind, few, seed=3).read(questions) == first
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"grader\.json: no such file; a grader is the checkpoint folder"):
        SlotGrader.load(tmp_path)
    with pytest.raises(DataError, match="no request among 1 training utterances"):
        SlotGrader.fit("linear", corpus()[-1:], seed=0)


def test_examples_are_the_experts_annotated_messages():
    acts = (Act(act="REQUEST", slot="city", service="Food_1"), Act(act="CONFIRM", slot="time", service="Food_1"))
    elsewhere = Act(act="REQUEST", slot="seats", service="Bus_1")
    conversation = Conversation(
        id="d",
        group="g",
        split="dev",
        source="sgd",
        messages=(
            Message(role="user", content="Where?", acts=(Act(act="REQUEST", slot="address", service="Food_1"),)),
            Message(role="assistant", content="Which city, at 7?", acts=acts),
            Message(role="assistant", content="Hello", acts=()),
            Message(role="assistant", content="Both?", acts=(*acts, elsewhere)),
            Message(role="assistant", content="Bye!", acts=(Act(act="GOODBYE", service="Food_1"),)),
        ),
    )
    assert list(examples_of(conversation)) == [
        Example("g", "dev", "Food_1", "Which city, at 7?", frozenset({"city"})),
        Example("g", "dev", "Food_1", "Bye!", frozenset()),
    ]


def test_parts_that_do_not_overlap_share_no_group_and_have_their_share():
    groups = [f"train/{number}" for number in range(2000)]
    most = {group for group in groups if in_fold(group, "0-2/4")}
    assert most == {group for group in groups if in_fold(group, "all") and not in_fold(group, "3/4")}
    assert 1400 < len(most) < 1600


@pytest.mark.parametrize("fold", ["even", "4/4", "2-1/4", "0/0", "1/-4", ""])
def test_a_fold_that_is_none_is_refused_with_what_one_looks_like(fold):
    with pytest.raises(RecipeError, match="must be all, or a part such as 3/4 or 0-2/4"):
        resolve(GraderRecipe, {"input": "a", "output": "b", "fold": fold})


def test_joined_questions_are_of_one_service_and_ask_for_both():
    questions = [example for example in corpus() if example.asks]
    for pair in joined(questions, count=50, random_source=random.Random(1)):
        parts = [question for question in questions if question.text in pair.text and question.service == pair.service]
        assert pair.asks <= frozenset().union(*(part.asks for part in parts))
        assert len(words(pair.text)) > 4


def test_numbers_do_not_matter_and_may_be_repeated():
    wording = Wording.learn(["Your number is 415-555-0100."])
    assert wording.share("Your number is 1-2-3.") == 1
    assert wording.share("Your number number is 1-2-3.") == 0


def test_a_text_far_longer_than_any_of_an_expert_is_not_familiar():
    wording = Wording.learn(["Where?", "When?", "Who?"])
    assert wording.share("Where? When?") == 1
    assert wording.share("Where? When? Who?") == 0
