import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from preference_examples import question_set
from safetensors.torch import load_file
from training_examples import finished_run, ingested, labelled, metrics, recipe, threads, turns

from askwell import rendering, runs, weights
from askwell.errors import DataError, RecipeError, RunError
from askwell.training import examples, loop, reading, sft

HERE = Path(__file__).parent


def train(wanted):
    with runs.start(wanted, "train", inputs=sft.inputs(wanted)) as run:
        counts = sft.run(wanted, run)
        run.finish(counts)
    return counts


def weights_of(path):
    return load_file(path / "checkpoint" / "model.safetensors")


def environment():
    paths = [str(HERE), str(Path(runs.__file__).parents[1])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished training run with its source: 11 dialogues, so the last batch of each epoch has a blank."""
    folder = tmp_path_factory.mktemp("undisturbed")
    wanted = recipe(labelled(folder / "label"), folder / "run")
    return wanted, train(wanted)


def test_a_run_leaves_a_policy_a_line_a_step_and_counts(undisturbed):
    wanted, counts = undisturbed
    lines = metrics(wanted.output)
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert [line["epoch"] for line in lines] == [round(step / 3, 4) for step in range(1, 10)]
    assert set(lines[0]) == {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens"}
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert sum(line["tokens"] for line in lines) == counts["tokens_seen"] == 3 * counts["tokens"]
    assert (counts["conversations"], counts["turns"], counts["rows"], counts["steps"]) == (11, 33, 11, 9)
    assert counts["tokens"] < counts["tokens_padded"]
    assert not (wanted.output / "attempt").exists()
    assert (wanted.output / "checkpoint" / "model.safetensors").exists()


def test_plan_foresees_the_run(undisturbed):
    wanted, counts = undisturbed
    plan = sft.plan(wanted)
    assert {key: plan[key] for key in ("conversations", "turns", "rows", "steps")} == {
        key: counts[key] for key in ("conversations", "turns", "rows", "steps")
    }
    scratch = wanted.scratch.model_copy(
        update={"vocabulary": weights_of(wanted.output)["model.embed_tokens.weight"].shape[0]}
    )
    assert scratch.parameters == counts["parameters"]


def test_plan_loads_no_torch(undisturbed):
    wanted, _ = undisturbed
    code = """
import sys
from pathlib import Path
from training_examples import recipe
from askwell.training import sft
assert sft.plan(recipe(Path(sys.argv[1]), Path(sys.argv[2])))["turns"] == 33
sys.exit("torch" in sys.modules)
"""
    arguments = [str(wanted.input), str(wanted.output)]
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment(), check=True)


def test_micro_batches_change_nothing(undisturbed, tmp_path):
    wanted, _ = undisturbed
    train(recipe(wanted.input, tmp_path / "run", micro_batch=1))
    same_curve(metrics(tmp_path / "run"), metrics(wanted.output))


def same_curve(one, other):
    assert [line["step"] for line in one] == [line["step"] for line in other]
    for key in ("loss", "grad_norm", "learning_rate", "tokens"):
        assert [line[key] for line in one] == pytest.approx([line[key] for line in other], rel=1e-4)


def test_a_base_model_goes_on_to_lora_and_the_adapters_load_with_their_base(tmp_path):
    base = recipe(ingested(tmp_path / "ingest"), tmp_path / "base", loss="all", epochs=1)
    counts = train(base)
    assert counts["tokens_with_loss"] == counts["tokens"] - counts["rows"]
    source = labelled(tmp_path / "label")
    tuned = recipe(source, tmp_path / "tuned", model=str(base.output), lora={"rank": 2}, prompt="policy", epochs=1)
    counts = train(tuned)
    assert 0 < counts["parameters_trained"] < counts["parameters"] / 2
    assert (tuned.output / "checkpoint" / "adapter_model.safetensors").exists()
    policy = weights.load(str(tuned.output))
    plain = weights.load(str(base.output))
    ids = torch.tensor([plain.tokenizer("Which city?")["input_ids"]])
    assert not torch.allclose(policy.model(ids).logits, plain.model(ids).logits)
    with policy.model.disable_adapter():
        torch.testing.assert_close(policy.model(ids).logits, plain.model(ids).logits)
    with pytest.raises(RecipeError, match="is itself a LoRA policy; drop `lora`"):
        sft.run(tuned.model_copy(update={"model": str(tuned.output)}), runs.Run(tmp_path / "x", resumed=False))


def test_rows_are_those_of_the_split_with_a_target_up_to_the_limit(tmp_path):
    rows = [turn for number in range(5) for turn in turns(number)]
    rows[0] = rows[0].model_copy(update={"target": None})
    rows[3:6] = [turn.model_copy(update={"split": "dev"}) for turn in rows[3:6]]
    counts = Counter()
    found = list(
        reading.turns(recipe(finished_run(tmp_path / "label", "label", rows), tmp_path / "run", limit=3), counts)
    )
    assert [turn.id for turn in found] == [
        "c0#1",
        "c0#2",
        *(f"c{number}#{index}" for number in (3, 4) for index in range(3)),  # drawn by hash
    ]
    assert counts == {"conversations": 3, "turns": 8, "turns_without_target": 1}


def test_nothing_to_train_on_is_an_error_that_says_so(tmp_path):
    wanted = recipe(labelled(tmp_path / "label"), tmp_path / "run", split="dev")
    assert sft.plan(wanted)["steps"] == 0
    with pytest.raises(DataError, match="nothing to train on in split 'dev'"):
        train(wanted)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    wanted = recipe(labelled(tmp_path / "label"), tmp_path / "run", optimizer={"learning_rate": 1e30, "warmup": 0})
    with pytest.raises(RunError, match=r"the loss is nan at step \d+; lower optimizer.learning_rate"):
        train(wanted)


def test_checkpoints_that_are_ahead_of_the_metrics_are_not_resumed_from(tmp_path):
    run = runs.Run(tmp_path, resumed=True)
    for step in (2, 4):
        (tmp_path / "attempt" / f"checkpoint-{step}").mkdir(parents=True)
        (tmp_path / "attempt" / f"checkpoint-{step}" / loop.COMPLETE).touch()
    for step in (1, 2, 3):
        run.log(step=step)
    assert loop.resume_point(run, main=False) == tmp_path / "attempt" / "checkpoint-2"
    assert loop.resume_point(run, main=True) == tmp_path / "attempt" / "checkpoint-2"
    assert metrics(tmp_path) == [{"step": 1}, {"step": 2}]
    assert not (tmp_path / "attempt" / "checkpoint-4").exists()


def test_questions_of_question_sets_share_their_context(tmp_path):
    judged = [question_set(number, verified=number != 1) for number in range(3)]
    source = finished_run(tmp_path / "sets", "synthesize", judged)
    found = {}
    for kind in ("real", "synthetic", "combined"):
        wanted = recipe(source, tmp_path / kind, questions=kind, epochs=1)
        plan, counts = sft.plan(wanted), train(wanted)
        assert {name: plan[name] for name in ("questions", "rows", "steps")} == {
            name: counts[name] for name in ("questions", "rows", "steps")
        }
        found[kind] = counts
    # The second set's enhanced questions were refuted by the judge.
    assert {kind: counts["questions"] for kind, counts in found.items()} == {"real": 3, "synthetic": 4, "combined": 7}
    assert found["synthetic"]["sets_without_question"] == 1
    assert found["combined"]["tokens"] < 0.7 * found["combined"]["tokens_padded"]
    one = recipe(source, tmp_path / "one", questions="synthetic", preferences={"attributes": ("focus",)})
    assert sft.plan(one)["questions"] == 2
    every = recipe(source, tmp_path / "every", questions="synthetic", preferences={"filtered": False})
    assert sft.plan(every)["questions"] == 6


def test_people_s_own_questions_may_come_straight_from_threads(tmp_path):
    source = threads(tmp_path / "threads")
    wanted = recipe(source, tmp_path / "run", questions="real", epochs=1)
    plan, counts = sft.plan(wanted), train(wanted)
    assert plan["questions"] == counts["questions"] == counts["rows"] == 6
    record, places = next(reading.questions(wanted, Counter()))
    assert [record.candidates[place].text for place in places] == ["What would you like to eat?"]
    assert [message.content for message in record.context][1:] == ["Which city?", "In Oslo."]
    for kind in ("synthetic", "combined"):
        other = recipe(source, tmp_path / kind, questions=kind)
        with pytest.raises(RecipeError, match="has people's own alone; take `--questions real`, or make better ones"):
            train(other)
        assert not other.output.exists()


@pytest.mark.parametrize(
    ("command", "fields", "needed"),
    [
        ("ingest", {}, "that of `askwell label` is needed"),
        ("label", {"loss": "all"}, "that of `askwell ingest` is needed"),
        ("label", {"questions": "real"}, "that of `askwell synthesize` or `askwell contrast` or `askwell ingest`"),
        ("ingest", {"questions": "real"}, "whole conversations of source None"),
    ],
)
def test_records_of_another_kind_are_refused_before_anything_is_made(tmp_path, command, fields, needed):
    wanted = recipe(finished_run(tmp_path / "source", command, []), tmp_path / "run", **fields)
    with pytest.raises(DataError, match=needed):
        train(wanted)
    assert not wanted.output.exists()


def test_the_loss_of_question_sets_is_that_of_each_question_by_itself(tmp_path):
    record = question_set(0)
    tokenizer = weights.create(
        recipe(tmp_path, tmp_path).scratch, [message.content for message in record.context], stop_marker="<s>", seed=0
    ).tokenizer
    counts = Counter()
    limits = {"prompt": "", "max_tokens": 1024, "counts": counts}
    [row] = examples.of_questions([(record, [0, 1])], tokenizer, **limits)
    for piece, place in zip(row, (0, 1), strict=True):
        before, after = rendering.render(tokenizer, record.context, record.candidates[place].text, prompt="")
        assert (list(piece.ids), [piece.ids[at] for at in piece.scored]) == (before + after, after)
    # With little room the context is cut for all by what the longest needs.
    room = max(len(piece.ids) for piece in row) - 1
    [cut] = examples.of_questions([(record, [0, 1])], tokenizer, **{**limits, "max_tokens": room})
    assert (counts["sets_cut"], counts["messages_left_out"]) == (1, 2)
    contexts = {tuple(piece.ids[: piece.scored[0]]) for piece in cut}
    assert contexts == {tuple(rendering.render(tokenizer, record.context[2:], None, prompt="")[0])}
    assert not examples.of_questions([(record, [0, 1])], tokenizer, **{**limits, "max_tokens": 16})
    assert counts["sets_too_long"] == 1
