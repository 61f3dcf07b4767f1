"""Preferences: the loss by hand and by the textbook on padded batches, and a cut run that ends as one that was not."""

import math
import warnings
from collections import Counter

import preference_examples
import pytest
import torch
from datasets import Dataset
from pydantic import ValidationError
from torch.nn.functional import logsigmoid
from training_examples import finished_run, messages, metrics, recipe
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from askwell import rendering, runs, weights
from askwell.errors import DataError, RecipeError
from askwell.recipes import Dpo, Lora
from askwell.records import Candidate, Preference, QuestionSet
from askwell.training import dpo, examples, preferences, scoring


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


def test_ipo_by_hand():
    found = preferences.preference_loss(torch.tensor([1.0, -2.0]), torch.tensor([[0, 1]]), Dpo(beta=0.5, loss="ipo"))
    assert float(found.total) == pytest.approx((3 - 1) ** 2)
    assert float(found.sums["margin"]) == pytest.approx(1.5)
    with pytest.raises(ValidationError, match="no meaning for ipo"):
        Dpo(loss="ipo", label_smoothing=0.1)


@pytest.fixture(scope="module")
def trl(base, tmp_path_factory):
    """TRL's trainer on a moved copy of the base, with the base as its reference; it patches both."""
    policy, reference = (weights.load(str(base)) for _ in range(2))
    move(policy.model)
    settings = {"beta": 0.3, "report_to": "none", "use_cpu": True, "bf16": False, "disable_tqdm": True}
    example = Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]})
    with warnings.catch_warnings(), weights.quiet():
        warnings.simplefilter("ignore", FutureWarning)  # TRL uses older names of transformers' settings
        args = DPOConfig(str(tmp_path_factory.mktemp("trl")), **settings)
        fields = {"args": args, "train_dataset": example, "processing_class": policy.tokenizer}
        return DPOTrainer(policy.model, reference.model, **fields)


def move(model):
    """Away from the start, where all margins are 0."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # TRL asks for it
@pytest.mark.parametrize("precompute", [True, False])
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("sigmoid", {}),
        ("sigmoid_norm", {"length_normalised": True}),
        ("ipo", {"loss": "ipo", "length_normalised": True}),
    ],
)
def test_loss_and_gradients_are_those_of_trl(base, trl, kind, fields, precompute):
    policy = weights.load(str(base))
    rows = examples.of_question_sets(SETS[:3], policy.tokenizer, prompt="", max_tokens=1024, counts=Counter())
    wanted = Dpo(beta=0.3, precompute=precompute, **fields)
    if precompute:
        rows = preferences.started(policy.model, rows, scoring.Layout())
    task = preferences.task(policy.model, rows, scoring.Layout(), wanted)
    move(policy.model)
    pairs = [(row.pieces[better], row.pieces[worse]) for row in rows for better, worse in row.pairs]
    split = [
        {
            "prompt_ids": list(better.ids[: better.scored[0]]),
            "chosen_ids": list(better.ids[better.scored[0] :]),
            "rejected_ids": list(worse.ids[worse.scored[0] :]),
        }
        for better, worse in pairs
    ]
    trl.loss_types = [kind]
    theirs = trl._compute_loss(trl.model, trl.data_collator(split), False)
    ours = task.loss(policy.model, task.collate(task.rows)).total / len(pairs)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    gradients = []
    for model, loss in ((policy.model, ours), (trl.model, theirs)):
        model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-5


def test_adapters_switched_off_are_the_reference_and_copies_are_where_there_are_none_to_switch_off(base, tmp_path):
    curves = []
    for name, fields in {"ahead": {}, "each step": {"precompute": False}}.items():
        wanted = preferred(tmp_path, base, name, lora={"rank": 2}, epochs=1, dpo=fields)
        runs.carry_out(dpo, wanted, "train")
        curves.append([line["loss"] for line in metrics(wanted.output)])
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    policy = weights.load(str(base), lora=Lora(rank=2))
    rows = examples.of_question_sets(SETS[:2], policy.tokenizer, prompt="", max_tokens=1024, counts=Counter())
    batch = scoring.lay_out([piece for row in rows for piece in row.pieces], scoring.Layout())
    start = scoring.score(policy.model, batch).logprobs
    off = preferences.reference_of(policy.model, adapters=True)
    move(policy.model.base_model.model.model.layers[0].self_attn.q_proj.lora_B)
    assert not torch.allclose(scoring.score(policy.model, batch).logprobs, start)
    torch.testing.assert_close(off(policy.model, batch), start)
    copied = preferences.reference_of(policy.model, adapters=False)
    assert not torch.allclose(copied(policy.model, batch), start)
    assert all(weight.requires_grad for name, weight in policy.model.named_parameters() if "lora" in name)


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
    rows = preferences.started(policy.model, rows, scoring.Layout())
    task = preferences.task(policy.model, rows, scoring.Layout(), Dpo(beta=0.3))
    move(policy.model)
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


@pytest.mark.parametrize(("precompute", "lora"), [(True, None), (False, None), (False, {"rank": 2})])
def test_in_bfloat16_too_the_start_has_no_margin(base, tmp_path, precompute, lora):
    fields = {"precision": "bfloat16", "dpo": {"precompute": precompute, "beta": 2.0}, "lora": lora}
    wanted = preferred(tmp_path, base, epochs=0.3, **fields)
    runs.carry_out(dpo, wanted, "train")
    assert metrics(wanted.output)[0]["margin"] == pytest.approx(0, abs=1e-4)


def test_attributes_choose_preferences_and_unknown_ones_are_named(base, tmp_path):
    sets = [*SETS[:3], question_set(4, "Which city?", "Mumble?", attribute="clarity")]
    wanted = preferred(tmp_path, base, sets=sets, preferences={"attributes": ("clarity",)})
    assert dpo.plan(wanted)["preferences"] == 1
    wanted = preferred(tmp_path, base, sets=sets, preferences={"attributes": ("focus",)})
    with pytest.raises(RecipeError, match="no preference in focus in .*; there are preferences in clarity, relevance"):
        dpo.plan(wanted)


def test_directions_and_verdicts_choose_preferences(base, tmp_path):
    sets = [
        preference_examples.question_set(0, verified=True),
        preference_examples.question_set(1, verified=False),
        preference_examples.question_set(2),
    ]
    source = finished_run(tmp_path / "sets", "synthesize", sets)

    def plan(**chosen):
        return dpo.plan(recipe(source, tmp_path / "run", method="dpo", model=str(base), preferences=chosen))

    assert plan(filtered=False)["preferences"] == 18
    # Of the third set nobody was asked.
    assert {name: plan()[name] for name in ("preferences", "preferences_not_confirmed", "rows")} == {
        "preferences": 12,
        "preferences_not_confirmed": 6,
        "rows": 2,
    }
    assert plan(directions=("E-C",), filtered=False)["preferences"] == 6
    assert plan(directions=("E-O", "O-C"), attributes=("focus",), filtered=False)["preferences"] == 6


def test_refusals(base, tmp_path):
    with pytest.raises(RecipeError, match="starts from a policy that can already ask"):
        dpo.inputs(preferred(tmp_path, "scratch"))
    with pytest.raises(DataError, match="nothing to train on in split 'dev'"):
        runs.carry_out(dpo, preferred(tmp_path, base, split="dev"), "train")
