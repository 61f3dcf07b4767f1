"""Policies on disk: saved, loaded, made from nothing."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from askwell import weights
from askwell.errors import DataError, RecipeError
from askwell.recipes import Lora, ScratchModel
from askwell.records import Message

SIZES = ScratchModel(vocabulary=400, hidden=16, layers=2, heads=2)
CORPUS = ["Which city would you like to eat in?", "I would like 12 rooms in São Paulo, please.", "  Which\n\nday? "] * 3
STOP = "<stop />"


@pytest.fixture(scope="module")
def policy():
    return weights.create(SIZES, CORPUS, stop_marker=STOP, seed=3)


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    weights.save(policy, path)
    return path


def user(text):
    return Message(role="user", content=text)


def expert(text):
    return Message(role="assistant", content=text)


def spelled(policy, ids):
    return policy.tokenizer.decode(ids)


def test_plain_transformers_load_what_was_saved(policy, folder):
    assert (folder / "model.safetensors").exists()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("Which city in São Paulo?")["input_ids"]])
    torch.testing.assert_close(model(ids).logits, policy.model(ids).logits)
    assert tokenizer.chat_template == policy.tokenizer.chat_template
    assert (tokenizer.pad_token, tokenizer.eos_token) == (weights.PAD, weights.END)
    assert len(tokenizer) == len(policy.tokenizer) == model.config.vocab_size
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@given(st.text())
def test_a_saved_tokenizer_reads_every_text_alike(policy, folder, text):
    loaded = LOADED.setdefault(folder, AutoTokenizer.from_pretrained(folder))
    assert loaded(text)["input_ids"] == policy.tokenizer(text)["input_ids"]


LOADED = {}


def test_a_scratch_policy_is_a_function_of_its_arguments(policy):
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = weights.create(SIZES, CORPUS, stop_marker=STOP, seed=3)
    other = weights.create(SIZES, CORPUS, stop_marker=STOP, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert again.tokenizer.get_vocab() == policy.tokenizer.get_vocab()
    one, same, different = (list(each.model.parameters()) for each in (policy, again, other))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], different[0])


def test_the_stop_marker_is_one_token_that_a_reply_keeps(policy):
    [marker] = policy.tokenizer(STOP)["input_ids"]
    assert policy.tokenizer.decode([marker], skip_special_tokens=True) == STOP


def test_the_head_runs_at_the_chosen_places_alone(policy):
    ids = torch.randint(5, 300, (3, 7), generator=torch.Generator().manual_seed(0))
    keep = torch.zeros(3, 7, dtype=torch.bool)
    keep[0, 2] = keep[0, 6] = keep[2, 0] = True
    full = policy.model(ids).logits
    with weights.head_only_at(policy.model, keep):
        some = policy.model(ids).logits
    torch.testing.assert_close(some, full[keep].unsqueeze(0))
    assert policy.model(ids).logits.shape == full.shape


def test_adapters_are_saved_and_loaded_with_their_base(policy, folder, tmp_path):
    adapted = weights.load(str(folder), lora=Lora(rank=2), trainable=True)
    assert {name.split(".")[-4] for name, weight in adapted.model.named_parameters() if weight.requires_grad} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    with torch.no_grad():
        for name, weight in adapted.model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    weights.save(adapted, tmp_path / "adapters")
    assert not (tmp_path / "adapters" / "model.safetensors").exists()
    base = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == str(folder)
    ids = torch.tensor([[7, 8, 9]])
    loaded = weights.load(str(tmp_path / "adapters"))
    torch.testing.assert_close(loaded.model(ids).logits, adapted.model(ids).logits)
    assert not torch.allclose(loaded.model(ids).logits, policy.model(ids).logits)
    with pytest.raises(RecipeError, match="lora.targets"):
        weights.load(str(folder), lora=Lora(targets=("no_such_layer",)))


def test_a_run_directory_means_its_checkpoint(policy, tmp_path):
    weights.save(policy, tmp_path / "run" / "checkpoint")
    with pytest.raises(DataError, match="an unfinished run"):
        weights.load(str(tmp_path / "run"))
    (tmp_path / "run" / "manifest.json").write_text("{}")
    assert weights.locate(str(tmp_path / "run")) == str(tmp_path / "run" / "checkpoint")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no causal language model and tokenizer can be loaded"):
        weights.load(str(tmp_path / "empty"))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_a_model_to_train_has_no_dropout_but_that_of_its_adapters(policy, tmp_path):
    sizes = {"vocab_size": len(policy.tokenizer), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1)).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    ids = torch.arange(12)[None]

    def twice(model):
        return [model.train()(ids).logits for _ in range(2)]

    for load in (weights.load, lambda name, **fields: weights.load_reward(name, seed=0, **fields)):
        torch.testing.assert_close(*twice(load(str(tmp_path), trainable=True).model), rtol=0, atol=0)
        kept = load(str(tmp_path), trainable=True, lora=Lora(rank=2, dropout=0.5)).model
        for name, weight in kept.named_parameters():
            if "lora_B" in name:
                weight.data.fill_(1.0)
        first, second = twice(kept)
        assert not torch.equal(first, second)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    assert weights.device() == torch.device("cpu") or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert weights.device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert weights.device() == torch.device("cuda", 3)
