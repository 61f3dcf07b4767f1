import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForSequenceClassification,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from askwell import weights
from askwell.errors import RecipeError
from askwell.recipes import Lora
from askwell.training import scoring
from askwell.training.scoring import Layout, lay_out, score
from askwell.training.trees import Piece

SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SIZES, "intermediate_size": 64, "bos_token_id": 1, "eos_token_id": 2}


def qwen(**fields):
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**WIDE, num_key_value_heads=2, **fields))


def gpt2():
    torch.manual_seed(0)
    off = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), 0.0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2, **off)
    )


def gemma2():
    """Eager attention, and logits that are capped after the head."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**WIDE, num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.1))


def dialogues(seed, count=3, turns=3, rollouts=3):
    """Nested contexts, several replies to each."""
    draw = random.Random(seed)

    def said(longest):
        return [draw.randrange(50) for _ in range(draw.randint(1, longest))]

    pieces = []
    for _ in range(count):
        context = said(6)
        for _ in range(turns):
            for _ in range(rollouts):
                reply = said(4)
                pieces.append(Piece(context + reply, range(len(context), len(context) + len(reply))))
            context = context + reply + said(4)
    return pieces


def padded_logprobs(model, pieces, *, left):
    """As trainers do it: every sequence in a row of its own, padded, with an attention mask; all logits."""
    ids = weights.padded([piece.ids for piece in pieces], fill=0, left=left)
    mask = weights.padded([[1] * len(piece.ids) for piece in pieces], fill=0, left=left)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits.float()
    logs = logits.log_softmax(-1)
    found = []
    for row, piece in enumerate(pieces):
        start = ids.shape[1] - len(piece.ids) if left else 0
        found += [logs[row, start + place - 1, piece.ids[place]] for place in piece.scored]
    return torch.stack(found)


def loss_and_gradients(model, logprobs):
    """Of a loss that weighs every token differently, so that none can take the place of another."""
    model.zero_grad()
    loss = (logprobs * torch.linspace(0.5, 1.5, len(logprobs))).sum()
    loss.backward()
    trained = [weight for weight in model.parameters() if weight.grad is not None]
    return loss.detach(), torch.cat([weight.grad.flatten() for weight in trained])


def relative(one, other):
    return float((one - other).norm() / other.norm())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), budget=st.sampled_from([1, 30, 10_000]), left=st.booleans())
def test_loss_and_gradients_are_those_of_padded_sequences(seed, budget, left):
    model = qwen()
    pieces = dialogues(seed)
    found = loss_and_gradients(model, score(model, lay_out(pieces, Layout(budget))).logprobs)
    wanted = loss_and_gradients(model, padded_logprobs(model, pieces, left=left))
    assert relative(found[0], wanted[0]) < 1e-5
    assert relative(found[1], wanted[1]) < 1e-5


@pytest.mark.parametrize("make", [gpt2, gemma2])
def test_other_families_too(make):
    model = make()
    scoring.check(model, longest=30)
    pieces = dialogues(1)
    found = loss_and_gradients(model, score(model, lay_out(pieces, Layout())).logprobs)
    wanted = loss_and_gradients(model, padded_logprobs(model, pieces, left=False))
    assert relative(found[0], wanted[0]) < 1e-5
    assert relative(found[1], wanted[1]) < 1e-5


def test_lora_and_gradient_checkpoints():
    model = weights.adapt(qwen(), Lora(rank=2))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    pieces = dialogues(2)
    wanted = loss_and_gradients(model, padded_logprobs(model, pieces, left=True))
    model.train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    found = loss_and_gradients(model, score(model, lay_out(pieces, Layout())).logprobs)
    assert len(found[1]) == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert relative(found[0], wanted[0]) < 1e-5
    assert relative(found[1], wanted[1]) < 1e-5


def test_chunks_of_the_head_change_nothing(monkeypatch):
    model, pieces = qwen(), dialogues(3)
    whole = score(model, lay_out(pieces, Layout()), temperature=0.7, entropies=True)
    wanted = loss_and_gradients(model, whole.logprobs)
    monkeypatch.setattr(scoring, "LOGITS", 50 * 7)
    parts = score(model, lay_out(pieces, Layout()), temperature=0.7, entropies=True)
    found = loss_and_gradients(model, parts.logprobs)
    assert relative(found[1], wanted[1]) < 1e-5
    torch.testing.assert_close(parts.entropies, whole.entropies)


def test_temperature_and_entropy_by_hand():
    model = qwen()
    found = score(model, lay_out([Piece([3, 4, 5], [2])], Layout()), temperature=0.5, entropies=True, hidden=True)
    [logprob], [entropy], [hidden] = found.logprobs, found.entropies, found.hidden
    logs = (model(torch.tensor([[3, 4]])).logits[0, -1] / 0.5).log_softmax(-1)
    torch.testing.assert_close(logprob, logs[5])
    torch.testing.assert_close(entropy, -(logs.exp() * logs).sum())
    torch.testing.assert_close((model.lm_head(hidden) / 0.5).log_softmax(-1), logs)


def test_a_target_that_two_sequences_score_counts_twice_and_one_in_a_later_context_keeps_its_loss():
    model = qwen()
    pieces = [Piece([1, 2, 3], [2]), Piece([1, 2, 3], [2]), Piece([1, 2, 3, 4], [3])]
    found = score(model, lay_out(pieces, Layout())).logprobs
    torch.testing.assert_close(found, padded_logprobs(model, pieces, left=False))


def test_a_batch_of_nothing_has_a_loss_of_nothing():
    model = qwen()
    loss = score(model, lay_out([], Layout())).logprobs.sum()
    loss.backward()
    assert loss == 0
    assert all(weight.grad is not None for weight in model.parameters())


def test_without_trees_every_sequence_has_a_padded_row():
    model, pieces = qwen(), dialogues(4)
    batch = lay_out(pieces, Layout(shared=False))
    assert batch.ends is None
    assert len(batch.input_ids) == len(pieces)
    torch.testing.assert_close(score(model, batch).logprobs, padded_logprobs(model, pieces, left=False))


@pytest.mark.parametrize("kind", [Qwen2Config, LlamaConfig, GPT2Config])
@pytest.mark.parametrize("budget", [30, 10_000])
def test_rewards_and_their_gradients_are_those_of_padded_sequences(kind, budget):
    """As `transformers` reads them: at the last token that is not the padding one, whatever ends the sequence."""
    torch.manual_seed(0)
    off = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), 0.0)
    sizes = {**off, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
    config = kind(vocab_size=50, **sizes) if kind is GPT2Config else kind(**WIDE, num_key_value_heads=2)
    config.num_labels, config.pad_token_id = 1, 7
    model = AutoModelForSequenceClassification.from_config(config)
    scoring.check(model, longest=30)
    pieces = [*dialogues(6), Piece([3, 4, 7, 7], [3]), Piece([7], [0])]
    ids = weights.padded([piece.ids for piece in pieces], fill=7)
    mask = weights.padded([[1] * len(piece.ids) for piece in pieces], fill=0)
    batch = lay_out(scoring.last_places(model, pieces), Layout(budget), own=True)
    found = loss_and_gradients(model, scoring.rewards(model, batch))
    wanted = loss_and_gradients(model, model(ids, attention_mask=mask, use_cache=False).logits.squeeze(1))
    assert relative(found[0], wanted[0]) < 1e-5
    assert relative(found[1], wanted[1]) < 1e-5


def test_flex_attention_follows_the_same_mask():
    """Its mask, spelled out, is the dense one; run on CUDA alone, where it is compiled."""
    from torch.nn.attention.flex_attention import create_mask

    batch = lay_out(dialogues(5, count=1), Layout(multiple=128))
    dense = scoring.attention(qwen(), batch.ends)
    assert batch.input_ids.shape[1] % 128 == 0
    spelled = create_mask(scoring.within(batch.ends), *dense.shape[:2], *dense.shape[2:], device="cpu")
    assert torch.equal(spelled, dense)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2)), "mask of a tree"),
        (lambda: BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4)), "mask of a tree"),
        (lambda: qwen(attention_dropout=0.1), "attention_dropout 0.1"),
        (lambda: qwen(use_sliding_window=True, sliding_window=16, max_window_layers=0), "sliding_window of 16 tokens"),
    ],
    ids=["recurrent", "learned distances", "dropout", "window"],
)
def test_a_model_that_cannot_take_trees_is_refused_with_the_setting_that_turns_them_off(model, reason):
    with pytest.raises(RecipeError, match=rf"{reason}.*--trees false"):
        scoring.check(model(), longest=30)


def test_a_model_that_ignores_the_mask_is_seen(monkeypatch):
    monkeypatch.setattr(scoring, "attention", lambda model, ends: None)
    with pytest.raises(RecipeError, match="nats apart.*--trees false"):
        scoring.check(qwen(), longest=30)
    with pytest.raises(RecipeError, match="nats apart.*--trees false"):
        config = Qwen2Config(**WIDE, num_key_value_heads=2, num_labels=1)
        scoring.check(AutoModelForSequenceClassification.from_config(config), longest=30)


def test_a_window_that_no_sequence_outgrows_is_no_obstacle():
    scoring.check(LlamaForCausalLM(LlamaConfig(**WIDE)), longest=10_000)
    scoring.check(qwen(use_sliding_window=True, sliding_window=16, max_window_layers=0), longest=16)
