"""Preferences: the loss by hand and by the textbook on padded batches, and a cut run that ends as one that was not."""

import math
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid
from training_examples import finished_run, ingested, messages, metrics, recipe

from askwell import rendering, runs, weights
from askwell.errors import DataError, RecipeError
from askwell.recipes import Dpo
from askwell.records import Candidate, Preference, QuestionSet
from askwell.training import dpo, examples, preferences, scoring, sft


def question_set(number, *texts, pairs=((0, 1),), attribute="relevance"):
    name = f"c{number}"
    return QuestionSet(
        id=f"{name}#0",
        conversation_id=name,
        group=name,
        split="train",
        context=messages(number)[:3],
        candidates=tuple(Candidate(text=text, origin="human") for text in texts),
        preferences=tuple(Preference(attribute=attribute, better=one, worse=two) for one, two in pairs),
    )


SETS = [
    question_set(number, "What would you like to eat?", f"Which bus number {number}?", "What?", pairs=((0, 1), (0, 2)))
    for number in range(9)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    wanted = recipe(ingested(folder / "ingest"), folder / "base", loss="all", epochs=1)
    runs.carry_out(sft, wanted, "train")
    return wanted.output


def preferred(tmp_path, base, name="run", sets=SETS, **fields):
    source = tmp_path / "sets"
    if not source.exists():
        finished_run(source, "contrast", sets)
    return recipe(source, tmp_path / name, method="dpo", model=str(base), **fields)


def test_the_loss_by_hand():
    ratios = torch.tensor([1.0, -2.0, 0.5])
    found = preferences.preference_loss(ratios, torch.tensor([[0, 1], [2, 0]]), Dpo(beta=0.5))
    # Margins 0.5 * 3 and 0.5 * -0.5.
    assert float(found.total) == pytest.approx(math.log1p(math.exp(-1.5)) + math.log1p(math.exp(0.25)))
    assert {name: float(value) for name, value in found.sums.items()} == pytest.approx(
        {"accuracy": 1, "margin": 1.25, "better": 0.75, "worse": -0.5}
    )
    smooth = preferences.preference_loss(ratios, torch.tensor([[0, 1]]), Dpo(beta=0.5, label_smoothing=0.1))
    assert float(smooth.total) == pytest.approx(0.9 * math.log1p(math.exp(-1.5)) + 0.1 * math.log1p(math.exp(1.5)))


def textbook(model, reference, policy, sets, beta):
    """Every pair in two padded rows of its own, logits everywhere, the mean over pairs."""
    losses = []
    for record in sets:
        sums = []
        for each in record.candidates:
            before, after = rendering.render(policy.tokenizer, record.context, each.text, prompt="")
            ids = torch.tensor([before + after])
            totals = []
            for network in (model, reference):
                logs = network(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).squeeze(1)
                totals.append(logs[len(before) - 1 :].sum())
            sums.append(totals[0] - totals[1].detach())
        losses += [-logsigmoid(beta * (sums[pair.better] - sums[pair.worse])) for pair in record.preferences]
    return torch.stack(losses).mean()


def test_loss_and_gradients_are_those_of_the_textbook(base):
    policy, reference = weights.load(str(base)), weights.load(str(base))
    rows = examples.of_question_sets(SETS[:3], policy.tokenizer, prompt="", max_tokens=1024, counts=Counter())
    task = preferences.task(policy.model, rows, scoring.Layout(), Dpo(beta=0.3))
    with torch.no_grad():
        # Away from the start, where all margins are 0.
        for weight in policy.model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    batch = task.collate(task.rows)
    assert int((batch["labels"][1:] != -100).sum()) == 6
    found = task.loss(policy.model, batch)
    gradients = []
    for loss in (found.total / 6, textbook(policy.model, reference.model, policy, SETS[:3], 0.3)):
        policy.model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in policy.model.parameters()]))
        assert float(loss.detach()) == pytest.approx(float(found.total.detach()) / 6, rel=1e-5)
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-5


def test_a_run_learns_its_preferences_and_starts_from_no_margin(base, tmp_path):
    wanted = preferred(tmp_path, base, epochs=8)
    counts = runs.carry_out(dpo, wanted, "train")
    assert (counts["question_sets"], counts["preferences"], counts["rows"], counts["steps"]) == (9, 18, 9, 24)
    plan = dpo.plan(wanted)
    assert {name: plan[name] for name in ("question_sets", "preferences", "rows", "steps")} == {
        name: counts[name] for name in ("question_sets", "preferences", "rows", "steps")
    }
    lines = metrics(wanted.output)
    assert lines[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert lines[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert lines[-1]["margin"] > 0.5
    assert lines[-1]["accuracy"] > 0.9
    assert lines[-1]["better"] - lines[-1]["worse"] == pytest.approx(lines[-1]["margin"], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_run_that_was_cut_ends_as_one_that_was_not(base, tmp_path, monkeypatch, lora):
    whole = preferred(tmp_path, base, "whole", lora=lora)
    runs.carry_out(dpo, whole, "train")
    again = preferred(tmp_path, base, "again", lora=lora)
    log = runs.Run.log

    def cut(run, **line):
        log(run, **line)
        if line["step"] == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs.Run, "log", cut)
        runs.carry_out(dpo, again, "train")
    runs.carry_out(dpo, again, "train")
    assert metrics(again.output) == metrics(whole.output)
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    one, other = (load_file(path / "checkpoint" / name) for path in (again.output, whole.output))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_attributes_choose_preferences_and_unknown_ones_are_named(base, tmp_path):
    sets = [*SETS[:3], question_set(4, "Which city?", "Mumble?", attribute="clarity")]
    wanted = preferred(tmp_path, base, sets=sets, preferences={"attributes": ("clarity",)})
    assert dpo.plan(wanted)["preferences"] == 1
    wanted = preferred(tmp_path, base, sets=sets, preferences={"attributes": ("focus",)})
    with pytest.raises(RecipeError, match="no preference in focus in .*; there are preferences in clarity, relevance"):
        dpo.plan(wanted)


def test_refusals(base, tmp_path):
    with pytest.raises(RecipeError, match="starts from a policy that can already ask"):
        dpo.inputs(preferred(tmp_path, "scratch"))
    with pytest.raises(DataError, match="nothing to train on in split 'dev'"):
        runs.carry_out(dpo, preferred(tmp_path, base, split="dev"), "train")
