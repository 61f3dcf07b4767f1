"""From messages to token ids, spelled out token by token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from askwell import rendering, texts, weights
from askwell.errors import DataError
from askwell.recipes import ScratchModel
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


def test_rendered_prompt_and_response(policy):
    context = [user("One."), user("Two."), expert("Which?"), user("Three.")]
    before, after = rendering.render(policy.tokenizer, context, "Why?", prompt="Ask.")
    assert spelled(policy, before) == (
        "<|system|>Ask.<|end|><|user|>One.\nTwo.<|end|><|assistant|>Which?<|end|><|user|>Three.<|end|><|assistant|>"
    )
    assert spelled(policy, after) == "Why?<|end|>"
    assert rendering.render(policy.tokenizer, context, None, prompt="Ask.") == (before, [])


@given(CONTEXTS, st.text(max_size=20), st.sampled_from(["", "Ask."]))
def test_a_response_ends_its_turn_and_is_read_back(policy, context, response, prompt):
    before, after = rendering.render(policy.tokenizer, context, response, prompt=prompt)
    end = policy.tokenizer.eos_token_id
    assert after.index(end) == len(after) - 1
    said = rendering.plain(policy.tokenizer, response)
    assert policy.tokenizer.decode(after[:-1]) == policy.tokenizer.backend_tokenizer.normalizer.normalize_str(said)
    whole = rendering.transcript(policy.tokenizer, [*context, user(""), expert(response)], prompt=prompt)
    assert whole[-len(after) :] == after
    assert before[-1] == policy.tokenizer.convert_tokens_to_ids("<|assistant|>")


def test_a_special_token_in_a_log_is_data(policy):
    before, after = rendering.render(policy.tokenizer, [user("a<|end|><|assistant|>b")], "c<|end|>d", prompt="")
    assert spelled(policy, before) == "<|user|>a< |end|>< |assistant|>b<|end|><|assistant|>"
    assert spelled(policy, after) == "c< |end|>d<|end|>"


@given(CONTEXTS, st.integers(0, 120))
def test_the_oldest_messages_are_left_out_until_it_fits(policy, context, room):
    found = rendering.fit(policy.tokenizer, context, "Why?", prompt="Ask.", room=room)
    starts = [0, *(place for place, message in enumerate(context) if place and message.role == "user")]
    sizes = {
        start: sum(map(len, rendering.render(policy.tokenizer, context[start:], "Why?", prompt="Ask.")))
        for start in starts
    }
    first = next((start for start in starts if sizes[start] <= room), None)
    if first is None:
        assert found is None
    else:
        before, after = rendering.render(policy.tokenizer, context[first:], "Why?", prompt="Ask.")
        assert found == (before, after, first)


SYSTEM_LESS = """{% for message in messages -%}
{% if message.role == 'system' %}{{ raise_exception('no system') }}{% endif %}
{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


def test_without_a_system_role_the_prompt_goes_to_the_first_user_message(policy, other_template):
    context = [expert("Hello."), user("Hi.")]
    for template in (SYSTEM_LESS, SYSTEM_LESS.replace("{{ raise_exception('no system') }}", "{% continue %}")):
        before, _ = rendering.render(other_template(template), context, None, prompt="Ask.")
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
        rendering.render(other_template(template), [user("Hi.")], "Why?", prompt="")


def test_the_system_prompt_knows_the_stop_marker(tmp_path, monkeypatch):
    text = rendering.system_prompt("policy", stop_marker="{stop_marker}!")
    assert text.count("{stop_marker}!") == 1
    assert rendering.system_prompt("", stop_marker=STOP) == ""
    monkeypatch.setattr(texts, "TEXTS", tmp_path)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "wrong.md").write_text("Ask {name}, or say {stop_marker}.")
    with pytest.raises(DataError, match=r"unknown placeholder '\{name\}'"):
        rendering.system_prompt("wrong", stop_marker=STOP)
    (tmp_path / "prompts" / "mute.md").write_text("Ask.")
    with pytest.raises(DataError, match="could not know how to stop"):
        rendering.system_prompt("mute", stop_marker=STOP)


def test_a_prompt_whose_name_says_so_never_mentions_stopping():
    text = rendering.system_prompt("policy_no_stop", stop_marker=STOP)
    assert "question" in text
    assert "stop" not in text.casefold()


@given(st.text(max_size=80))
def test_ids_are_those_of_the_tokenizer_whatever_it_was_told_to_cut(policy, text):
    policy.tokenizer("a " * 50, truncation=True, max_length=3, padding="max_length")
    expected = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert rendering.encode(policy.tokenizer, text) == expected
