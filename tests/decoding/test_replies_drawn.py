import warnings

import pytest
import torch
from decoding_examples import APART, SHARED, SIZES, VOCABULARY, dialogue_contexts, tiny, tokens
from hypothesis import assume, given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import LogitsProcessorList, Qwen2Config, Qwen2ForCausalLM, TemperatureLogitsWarper, TopPLogitsWarper

from askwell import weights
from askwell.decoding import cache
from askwell.decoding.replies import Drawing, chosen, closed_up, sample
from askwell.errors import DataError

GREEDY = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 12, "pad": 0, "seed": 0}
WARM = {**GREEDY, "temperature": 1.0}


def generated(model, contexts, *, ends, new):
    """What `generate` says, cut behind the first of `ends`."""
    width = max(map(len, contexts))
    ids = torch.tensor([[0] * (width - len(context)) + context for context in contexts])
    mask = torch.tensor([[0] * (width - len(context)) + [1] * len(context) for context in contexts])
    out = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False, eos_token_id=ends, pad_token_id=0
    )
    replies = out[:, width:].tolist()
    cuts = [next((place + 1 for place, token in enumerate(reply) if token in ends), new) for reply in replies]
    return [reply[:cut] for reply, cut in zip(replies, cuts, strict=True)]


@pytest.mark.parametrize("name", [*SHARED, *APART])
def test_greedy_replies_are_those_of_generate(name):
    model = tiny({**SHARED, **APART}[name])
    contexts = dialogue_contexts()
    free = generated(model, contexts, ends=[96], new=12)
    ends = sorted({free[0][0], free[4][5], free[6][3]})
    wanted = generated(model, contexts, ends=ends, new=12)
    sizes = {len(reply) for reply in wanted}
    assert len(sizes) > 2 and 12 in sizes
    assert sample(model, contexts, group=1, ends=ends, **GREEDY) == [[reply] for reply in wanted]
    assert sample(model, contexts, group=3, ends=ends, **GREEDY) == [[reply] * 3 for reply in wanted]


@pytest.mark.parametrize("name", ["qwen2", "llama", "mistral", "lfm2"])
def test_a_drawn_reply_depends_on_no_other(name, monkeypatch):
    model = tiny({**SHARED, **APART}[name], scale=2)
    contexts = dialogue_contexts()
    together = sample(model, contexts, group=4, ends=[1, 2, 3, 4, 5, 6], **WARM)
    assert len({len(reply) for replies in together for reply in replies}) > 5
    monkeypatch.setattr(cache, "ROOM", 1)
    monkeypatch.setitem(cache.FORWARD, "cpu", 1)
    assert sample(model, contexts, group=4, ends=[1, 2, 3, 4, 5, 6], **WARM) == together


@pytest.mark.parametrize("name", [*SHARED, *APART])
def test_every_token_is_drawn_from_what_the_model_says_of_all_before_it(name):
    model = tiny({**SHARED, **APART}[name], scale=2)
    contexts, ends = dialogue_contexts(), list(range(1, 15))
    replies = sample(model, contexts, group=4, ends=ends, **WARM)
    assert len({tuple(reply) for group in replies for reply in group}) > 20
    chances = torch.rand((len(contexts), 4, 12), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for context, group, rows in zip(contexts, replies, chances, strict=True):
        for reply, row in zip(group, rows, strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([[*context, *reply]])).logits[0, len(context) - 1 : -1]
            assert chosen(logits, row[: len(reply)], Drawing(1.0, 1.0, 12, ends, 0)).tolist() == reply
            assert len(reply) == 12 or reply[-1] in ends
            assert not set(reply[:-1]) & set(ends)


def test_what_has_no_odds_is_never_drawn():
    logits = torch.tensor([[-1000.0, 2.0, -1000.0, 1.0, -1000.0]]).expand(2, -1)
    bounds = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    for top_p, found in ((1.0, [1, 3]), (0.9, [1, 3]), (0.5, [1, 1])):
        assert chosen(logits, bounds, Drawing(1.0, top_p, 1, [], 0)).tolist() == found


def test_a_drawn_reply_has_the_likelihood_that_the_model_gives_it():
    model = tiny(lambda: Qwen2ForCausalLM(Qwen2Config(**{**SIZES, "vocab_size": 5})), scale=3)
    context, end, count = [1, 2, 3, 1], 4, 6000
    [replies] = sample(model, [context], group=count, ends=[end], **{**WARM, "max_new_tokens": 2, "temperature": 0.7})
    assert all(len(reply) == 1 if reply[0] == end else len(reply) == 2 for reply in replies)
    with torch.no_grad():
        first = (model(torch.tensor([context])).logits[0, -1] / 0.7).softmax(-1)
        second = (model(torch.tensor([[*context, token] for token in range(5)])).logits[:, -1] / 0.7).softmax(-1)
    expected = {(end,): float(first[end])}
    expected |= {(a, b): float(first[a] * second[a, b]) for a in range(4) for b in range(5)}
    assert sum(expected.values()) == pytest.approx(1, abs=1e-5)
    assert sorted(expected.values())[-4] > 0.02
    for reply, odds in expected.items():
        share = replies.count(list(reply)) / count
        assert abs(share - odds) < 4.5 * (odds * (1 - odds) / count) ** 0.5 + 1e-3, reply


@given(
    st.lists(st.integers(-16, 16), min_size=2, max_size=20, unique=True),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.3, 3),
    st.one_of(st.just(1.0), st.floats(0.05, 0.99)),
)
def test_a_chance_falls_on_a_token_of_the_odds_that_transformers_would_draw_from(row, chance, temperature, top_p):
    logits = torch.tensor([row]) / 2
    full = (logits[0].double() / temperature).softmax(-1)
    # Equal up to rounding, either may keep one token more.
    assume(not bool(((full.sort(descending=True).values.cumsum(0) - top_p).abs() < 1e-5).any()))
    warpers = [TemperatureLogitsWarper(temperature), *([TopPLogitsWarper(top_p)] if top_p < 1 else [])]
    odds = LogitsProcessorList(warpers)(torch.zeros(1, 1), logits)[0].double().softmax(-1)
    token = int(chosen(logits, torch.tensor([chance], dtype=torch.float64), Drawing(temperature, top_p, 1, [], 0)))
    order = odds.argsort(descending=True) if top_p < 1 else torch.arange(len(row))
    end = float(odds[order].cumsum(0)[order.tolist().index(token)])
    assert odds[token] > 0
    assert end - float(odds[token]) - 1e-5 <= chance <= end + 1e-5


@given(st.integers(1, 7).flatmap(lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width))))
def test_what_lives_is_kept_and_the_front_rows_stay(live):
    if not live:
        return
    rows, slots = closed_up(torch.tensor(live))
    kept = [
        (row, slot) for row, chosen_slots in zip(rows.tolist(), slots.tolist(), strict=True) for slot in chosen_slots
    ]
    assert sorted(pair for pair in kept if live[pair[0]][pair[1]]) == [
        (row, slot) for row, line in enumerate(live) for slot, alive in enumerate(line) if alive
    ]
    assert len(kept) == len(set(kept)) == len(rows) * max(map(sum, live))
    assert all(number == row for number, row in enumerate(rows.tolist()) if row < len(rows))


def test_replies_are_drawn_by_the_seed_alone():
    model = tiny(SHARED["qwen2"], scale=2)
    contexts = dialogue_contexts()
    state = torch.random.get_rng_state()
    first = sample(model, contexts, group=2, ends=[1], **WARM)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(8)
    assert sample(model, contexts, group=2, ends=[1], **WARM) == first
    assert sample(model, contexts, group=2, ends=[1], **{**WARM, "seed": 1}) != first
    assert first[0] != first[2], "one context asked for twice has replies of its own"
    assert first[0][0] != first[0][1]
    assert sample(model, [], group=2, ends=[1], **WARM) == []


def test_what_has_ended_is_computed_no_more():
    model = tiny(SHARED["qwen2"], scale=2)
    shapes = []
    contexts = [tokens(6, seed=seed) for seed in range(6)]
    model.register_forward_pre_hook(lambda _, args, named: shapes.append(named["input_ids"].shape), with_kwargs=True)
    replies = sample(model, contexts, group=5, ends=list(range(1, 20)), **{**WARM, "max_new_tokens": 40})
    steps = shapes[2:]
    for step, (rows, slots) in enumerate(steps, start=1):
        going_on = [sum(len(reply) > step for reply in group) for group in replies]
        assert (rows, slots) == (sum(map(bool, going_on)), max(going_on))
    assert len(steps) == max(len(reply) for group in replies for reply in group) - 1
    assert steps[0] > steps[-1]


def test_a_model_in_training_is_evaluated_and_left_as_it_was():
    config = Qwen2Config(**SIZES, attention_dropout=0.5, use_cache=False)
    model = tiny(lambda: Qwen2ForCausalLM(config))
    wanted = sample(model, dialogue_contexts(), group=2, ends=[1], **GREEDY)
    model.train()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`gradient_checkpointing_enable` is deprecated")
        model.gradient_checkpointing_enable()
    model.lm_head.eval()
    # Tensors made in inference mode could never take part in training, should a model keep some.
    model.register_forward_pre_hook(lambda *_: pytest.fail("inference") if torch.is_inference_mode_enabled() else None)
    assert sample(model, dialogue_contexts(), group=2, ends=[1], **GREEDY) == wanted
    assert model.training and model.model.layers[0].training and not model.lm_head.training
    assert model.model.gradient_checkpointing
    model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    assert model.lm_head.weight.grad is not None
    with pytest.raises(IndexError):
        sample(model, [[VOCABULARY]], group=1, ends=[1], **GREEDY)
    assert model.training


def test_adapters():
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        with weights.quiet():
            model = get_peft_model(tiny(SHARED["qwen2"]), lora).eval()
    contexts = dialogue_contexts()
    got = sample(model, contexts, group=2, ends=[96], **GREEDY)
    assert got == [[reply] * 2 for reply in generated(model, contexts, ends=[96], new=12)]
    with model.disable_adapter():
        assert sample(model, contexts, group=2, ends=[96], **GREEDY) != got


@pytest.mark.parametrize("choice", [GREEDY, WARM])
def test_broken_weights_are_an_error_and_no_reply(choice):
    model = tiny(SHARED["qwen2"])
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="no finite numbers"):
        sample(model, [[1, 2]], group=1, ends=[1], **choice)
