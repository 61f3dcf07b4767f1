"""`askwell grader` end to end: what it learns from, how it calibrates, what it leaves."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell import jsonl, runs
from askwell.errors import DataError
from askwell.grading import fit
from askwell.grading.figures import corruptions, of_corrupted, of_test, summary
from askwell.grading.slots import SlotGrader
from askwell.grading.utterances import Example, in_fold
from askwell.recipes import GraderRecipe
from askwell.records import Act, Conversation, Message

SGD = Path(__file__).resolve().parents[3] / "shared" / "data" / "sgd"
ASKS = {
    "city": ["Which city should I look in?", "What city are you in?", "In which city do you want to eat?"],
    "time": ["What time do you want to eat?", "At what time should I book it?", "For what time?"],
}


def conversation(number, *, service="Food_1", source="train"):
    rng = random.Random(number)
    messages = []
    for slot in rng.sample(sorted(ASKS), 2):
        messages.append(Message(role="user", content="Hello."))
        acts = (Act(act="REQUEST", slot=slot, service=service),)
        messages.append(Message(role="assistant", content=rng.choice(ASKS[slot]), acts=acts))
    acts = (Act(act="OFFER", slot="name", service=service), Act(act="CONFIRM", slot="city", service=service))
    messages.append(Message(role="assistant", content="I found a table in this city.", acts=acts))
    name = f"{source}/{number}"
    split = ("dev", "test", "train", "train", "train")[number % 5]
    return Conversation(id=name, group=name, split=split, source="sgd", messages=tuple(messages))


def ingested(path, conversations):
    """A finished run, as `askwell ingest` leaves it."""
    path.mkdir()
    jsonl.write(path / "records.jsonl", conversations)
    (path / "manifest.json").write_text("{}")
    return path


@pytest.fixture
def recipe(tmp_path):
    path = ingested(tmp_path / "train", [conversation(number) for number in range(100)])
    return GraderRecipe(input=(path,), output=tmp_path / "grader")


def fitted(recipe):
    with runs.start(recipe, "grader", inputs=fit.inputs(recipe)) as run:
        counts = fit.run(recipe, run)
        run.finish(counts)
    return counts


def test_leaves_a_grader_that_answers_and_a_report(recipe):
    counts = fitted(recipe)
    assert counts == {
        "services": 1,
        "train_utterances": 180,
        "train_questions": 120,
        "dev_utterances": 60,
        "dev_questions": 40,
        "test_utterances": 60,
        "test_questions": 40,
        "test_questions_scored": 40,
        "test_questions_unscored": 0,
    }
    grader = SlotGrader.load(recipe.output / "checkpoint")
    assert grader.asked([("Food_1", "For what time?"), ("Food_1", "What time time time?")]) == [{"time"}, None]
    report = json.loads((recipe.output / "report.json").read_text(encoding="utf-8"))
    assert report["test"]["questions"]["exact"] == {"value": 1, "low": 1, "high": 1, "scored": 40, "unscored": 0}
    assert report["test"]["all"]["exact"]["scored"] == 60
    page = (recipe.output / "report.md").read_text(encoding="utf-8")
    assert "| experts' questions | 1.000 (1.000 to 1.000) | 1.000 (1.000 to 1.000) |" in page
    assert "| a word three times |" in page


def test_plan_counts_and_writes_nothing(recipe):
    planned = fit.plan(recipe)
    assert planned["train_questions"] == 120 and not recipe.output.exists()


def test_a_cut_run_ends_as_an_undisturbed_one(recipe, tmp_path, monkeypatch):
    fitted(recipe)
    again = recipe.model_copy(update={"output": tmp_path / "again"})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("askwell.grading.figures.page", lambda report: (_ for _ in ()).throw(KeyboardInterrupt))
        fitted(again)
    (again.output / "checkpoint" / "grader.json").write_text("torn")
    fitted(again)
    for name in ("checkpoint/grader.json", "checkpoint/weights.npz", "report.json", "report.md"):
        assert (again.output / name).read_bytes() == (recipe.output / name).read_bytes()


def test_the_folds_learn_from_different_conversations_and_calibrate_on_the_same(recipe):
    examples = fit.read(recipe)
    even, odd = (fit.learned_from(examples, recipe.model_copy(update={"fold": fold})) for fold in ("0-2/4", "3/4"))
    assert not {example.group for example in even} & {example.group for example in odd}
    assert len(even) + len(odd) == 180 and all(example.split == "train" for example in even + odd)
    assert all(in_fold(example.group, "0-2/4") for example in even)


def test_several_inputs_are_joined_and_a_conversation_counts_once(recipe, tmp_path):
    first = recipe.input[0]
    elsewhere = [conversation(number, service="Eat_2", source="dev") for number in range(50)]
    second = ingested(tmp_path / "dev", [*elsewhere, conversation(2)])
    both = recipe.model_copy(update={"input": (first, second)})
    counts = fit.plan(both)
    assert (counts["services"], counts["train_questions"]) == (2, 180)


def test_without_dev_questions_it_says_what_to_do(recipe, tmp_path):
    path = ingested(tmp_path / "bare", [conversation(number) for number in range(100) if number % 5 > 1])
    with pytest.raises(DataError, match=r"no question of a known service among 0 dev utterances .* --split\.dev"):
        fitted(recipe.model_copy(update={"input": (path,)}))


TRUTH = frozenset({"city"})
JUDGED = st.lists(st.tuples(st.integers(1, 20).map(lambda tenth: tenth / 20), st.booleans()), min_size=1, max_size=80)


@given(JUDGED, st.sampled_from([0.3, 0.5, 0.7]))
def test_the_threshold_is_the_lowest_that_reaches_the_precision(judged, precision):
    readings = [(TRUTH if right else frozenset(), confidence) for confidence, right in judged]

    def reached(chosen):
        scored = [right for confidence, right in judged if confidence >= chosen]
        return bool(scored) and fit.lower_end(sum(scored), len(scored)) >= precision

    cuts = sorted({confidence for confidence, _ in judged})
    if any(map(reached, cuts)):
        chosen = fit.threshold(readings, [TRUTH] * len(readings), precision=precision)
        assert reached(chosen) and chosen not in cuts[1:]
        assert not any(reached(cut) for cut in cuts if cut < chosen)
    else:
        with pytest.raises(DataError, match=f"precision {precision} is out of reach"):
            fit.threshold(readings, [TRUTH] * len(readings), precision=precision)


@pytest.mark.parametrize(("right", "count", "expected"), [(19, 19, 0.95), (0, 5, 0.0), (5, 10, 0.349)])
def test_lower_end_by_hand(right, count, expected):
    assert fit.lower_end(right, count) == pytest.approx(expected, abs=1e-3)


def test_readings_withheld_for_odd_wording_do_not_count_in_the_precision():
    readings = [None] * 50 + [(TRUTH, 0.9)] * 30
    assert fit.threshold(readings, [TRUTH] * 80, precision=0.95) == pytest.approx(0.45)


def example(group, asks):
    return Example(group, "test", "Food_1", "?", frozenset(asks))


def test_the_figures_by_hand():
    pairs = [
        (example("a", {"city", "time"}), frozenset({"city"})),
        (example("a", {"city"}), frozenset({"city"})),
        (example("b", {"time"}), None),
        (example("b", ()), frozenset()),
    ]
    found = summary(pairs, seed=0)
    assert found["exact"]["value"] == pytest.approx(2 / 3)
    assert (found["exact"]["scored"], found["exact"]["unscored"]) == (3, 1)
    assert found["coverage"]["value"] == 0.75
    assert found["f1"]["value"] == pytest.approx(2 * 2 / (2 * 2 + 1))


@given(st.sampled_from([*ASKS["city"], *ASKS["time"]]), st.integers(0, 99))
def test_corruptions_are_what_they_are_called(text, seed):
    made = {name: corrupt(text) for name, corrupt in corruptions(random.Random(seed)).items()}
    assert sorted(made["words shuffled"].split()) == sorted(text.split())
    assert len(made["a word three times"].split()) == len(text.split()) + 2
    assert text.startswith(made["first half alone"]) and text.endswith(made["its last word alone"])


def sgd_examples(count):
    """The first dialogues of the real data, read without the ingest stage."""
    found = []
    for number, dialogue in enumerate(json.loads((SGD / "train" / "dialogues_001.json").read_bytes())[:count]):
        for turn in dialogue["turns"]:
            if turn["speaker"] == "SYSTEM":
                frame = turn["frames"][0]
                asks = frozenset(act["slot"] for act in frame["actions"] if act["act"] == "REQUEST")
                split = "dev" if number % 10 == 0 else "test" if number % 10 in (1, 2) else "train"
                found.append(Example(dialogue["dialogue_id"], split, frame["service"], turn["utterance"], asks))
    return found


@pytest.mark.skipif(not SGD.is_dir(), reason="no ../shared/data/sgd beside the repository")
def test_on_real_dialogues_it_is_right_where_it_speaks_and_silent_on_salad():
    examples = sgd_examples(600)
    grader = SlotGrader.fit("linear", [example for example in examples if example.split == "train"], seed=0)
    fit.calibrate(grader, [example for example in examples if example.split == "dev"], precision=0.9)
    test = [example for example in examples if example.split == "test"]
    figures = of_test(grader, test, seed=0)["test"]["questions"]
    assert figures["exact"]["value"] > 0.85 and figures["coverage"]["value"] > 0.5
    corrupted = of_corrupted(grader, test, random_source=random.Random(0))
    asked = sum(corrupted["intact"].values())
    assert corrupted["a word three times"]["abstains"] == asked == corrupted["said twice"]["abstains"]
    assert corrupted["words shuffled"]["abstains"] > 0.7 * asked
