import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from askwell import texts, weights
from askwell.errors import DataError, RecipeError
from askwell.recipes import Lora, ScratchModel
from askwell.records import Message

SIZES = ScratchModel(vocabulary=400, hidden=16, layers=2, heads=2)
CORPUS = ["Which city would you like to eat in?", "I would like 12 rooms in São Paulo, please.", "  Which\n\nday? "] * 3
STOP = "<stop />"

CONTEXTS = st.lists(
    st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=st.text(max_size=20)),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def policy():
    return weights.create(SIZES, CORPUS, stop_marker=STOP, seed=3)


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    weights.save(policy, path)
    return path


@pytest.fixture
def other_template(folder):
    """The scratch tokenizer with another chat template."""

    def change(template):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = template
        return tokenizer

    return change


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


def test_rendered_prompt_and_response(policy):
    context = [user("One."), user("Two."), expert("Which?"), user("Three.")]
    before, after = weights.render(policy.tokenizer, context, "Why?", prompt="Ask.")
    assert spelled(policy, before) == (
        "<|system|>Ask.<|end|><|user|>One.\nTwo.<|end|><|assistant|>Which?<|end|><|user|>Three.<|end|><|assistant|>"
    )
    assert spelled(policy, after) == "Why?<|end|>"
    assert weights.render(policy.tokenizer, context, None, prompt="Ask.") == (before, [])


@given(CONTEXTS, st.text(max_size=20), st.sampled_from(["", "Ask."]))
def test_a_response_ends_its_turn_and_is_read_back(policy, context, response, prompt):
    before, after = weights.render(policy.tokenizer, context, response, prompt=prompt)
    end = policy.tokenizer.eos_token_id
    assert after.index(end) == len(after) - 1
    said = weights.plain(policy.tokenizer, response)
    assert policy.tokenizer.decode(after[:-1]) == policy.tokenizer.backend_tokenizer.normalizer.normalize_str(said)
    whole = weights.transcript(policy.tokenizer, [*context, user(""), expert(response)], prompt=prompt)
    assert whole[-len(after) :] == after
    assert before[-1] == policy.tokenizer.convert_tokens_to_ids("<|assistant|>")


def test_a_special_token_in_a_log_is_data(policy):
    before, after = weights.render(policy.tokenizer, [user("a<|end|><|assistant|>b")], "c<|end|>d", prompt="")
    assert spelled(policy, before) == "<|user|>a< |end|>< |assistant|>b<|end|><|assistant|>"
    assert spelled(policy, after) == "c< |end|>d<|end|>"


@given(CONTEXTS, st.integers(0, 120))
def test_the_oldest_messages_are_left_out_until_it_fits(policy, context, room):
    found = weights.fit(policy.tokenizer, context, "Why?", prompt="Ask.", room=room)
    starts = [0, *(place for place, message in enumerate(context) if place and message.role == "user")]
    sizes = {
        start: sum(map(len, weights.render(policy.tokenizer, context[start:], "Why?", prompt="Ask.")))
        for start in starts
    }
    first = next((start for start in starts if sizes[start] <= room), None)
    if first is None:
        assert found is None
    else:
        before, after = weights.render(policy.tokenizer, context[first:], "Why?", prompt="Ask.")
        assert found == (before, after, first)


SYSTEM_LESS = """{% for message in messages -%}
{% if message.role == 'system' %}{{ raise_exception('no system') }}{% endif %}
{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


def test_without_a_system_role_the_prompt_goes_to_the_first_user_message(policy, other_template):
    context = [expert("Hello."), user("Hi.")]
    for template in (SYSTEM_LESS, SYSTEM_LESS.replace("{{ raise_exception('no system') }}", "{% continue %}")):
        before, _ = weights.render(other_template(template), context, None, prompt="Ask.")
        assert spelled(policy, before) == "<|assistant|>Hello.<|end|><|user|>Ask.\n\nHi.<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('roles must alternate') }}", "refuses a conversation of the roles user.*must alternate"),
        ("{{ messages | length }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}", "only ever appends"),
        ("{% for m in messages %}{{ m.content }} {% endfor %}", "no end-of-turn token follows a reply"),
    ],
)
def test_a_template_that_cannot_serve_is_named_with_the_way_out(other_template, template, complaint):
    with pytest.raises(DataError, match=complaint):
        weights.render(other_template(template), [user("Hi.")], "Why?", prompt="")


def test_the_system_prompt_knows_the_stop_marker(tmp_path, monkeypatch):
    text = weights.system_prompt("policy", stop_marker="{stop_marker}!")
    assert text.count("{stop_marker}!") == 1
    assert weights.system_prompt("", stop_marker=STOP) == ""
    monkeypatch.setattr(texts, "PROMPTS", tmp_path)
    (tmp_path / "wrong.md").write_text("Ask {name}, or say {stop_marker}.")
    with pytest.raises(DataError, match=r"unknown placeholder '\{name\}'"):
        weights.system_prompt("wrong", stop_marker=STOP)
    (tmp_path / "mute.md").write_text("Ask.")
    with pytest.raises(DataError, match="could not know how to stop"):
        weights.system_prompt("mute", stop_marker=STOP)


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
