import itertools

import pytest
import torch
from decoding_examples import APART, SHARED, dialogue_contexts, tiny
from hypothesis import given
from hypothesis import strategies as st
from transformers import BloomConfig, BloomForCausalLM

from askwell.decoding import cache
from askwell.decoding.cache import attends_to_all
from askwell.decoding.contexts import hosts_of, read, stretches
from askwell.errors import DataError


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6).map(tuple), max_size=12))
def test_a_host_begins_with_its_context_and_no_other_context_begins_with_a_host(contexts):
    hosts = hosts_of(contexts)
    assert set(hosts) == set(contexts)
    for context, host in hosts.items():
        assert host[: len(context)] == context
        assert not any(len(other) > len(host) and other[: len(host)] == host for other in contexts)


@given(st.lists(st.integers(1, 9)), st.integers(1, 20))
def test_stretches_are_all_items_in_order_and_as_long_as_fits(items, budget):
    found = list(stretches(items, lambda item: item, lambda sizes: sum(sizes) <= budget))
    assert [item for stretch in found for item in stretch] == items
    assert all(sum(stretch) <= budget or len(stretch) == 1 for stretch in found)
    assert all(sum(one) + other[0] > budget for one, other in itertools.pairwise(found))


@pytest.mark.parametrize("name", SHARED)
def test_a_prefix_is_what_the_model_keeps_of_the_context_alone(name):
    model = tiny(SHARED[name])
    contexts = [tuple(context) for context in dialogue_contexts()]
    with torch.no_grad():
        [batch] = read(model, contexts, group=2, spare=3)
        assert sorted(batch.places) == list(range(len(contexts)))
        for row, place in enumerate(batch.places):
            out = model(torch.tensor([contexts[place]]), use_cache=True)
            size = len(contexts[place])
            assert batch.seen[row].tolist() == [False] * (30 - size) + [True] * size
            torch.testing.assert_close(batch.logits[row], out.logits[0, -1], rtol=1e-4, atol=1e-4)
            for mine, theirs in zip(batch.cache.layers, out.past_key_values.layers, strict=True):
                for side in ("keys", "values"):
                    kept = getattr(mine, side)[row, :, :30]
                    torch.testing.assert_close(kept[:, 30 - size :], getattr(theirs, side)[0], rtol=1e-4, atol=1e-4)
                    assert not kept[:, : 30 - size].any()


def test_what_is_shared_goes_through_the_model_once(monkeypatch):
    model = tiny(SHARED["qwen2"])
    passes = []
    model.register_forward_pre_hook(lambda _, args, named: passes.append(named["input_ids"].shape), with_kwargs=True)
    longest = tuple(range(1, 41))
    with torch.no_grad():
        batches = list(read(model, [longest[:size] for size in (10, 20, 40, 40)], group=8, spare=4))
        assert passes == [(1, 1), (1, 40)]
        assert [batch.logits.shape[0] for batch in batches] == [4]
        passes.clear()
        monkeypatch.setitem(cache.FORWARD, "cpu", 60)
        list(read(model, [(1,) * 10, (2,) * 20, (3,) * 30, (4,) * 70], group=1, spare=4))
        assert passes == [(1, 1), (2, 20), (1, 30), (1, 70)]


def test_batches_stay_within_the_room(monkeypatch):
    model = tiny(SHARED["qwen2"])
    a_token = 2 * 2 * 2 * 8 * 4
    monkeypatch.setattr(cache, "ROOM", 100 * a_token)
    contexts = [(number + 1,) * 20 for number in range(7)]
    with torch.no_grad():
        batches = list(read(model, contexts, group=3, spare=10))
    assert [len(batch.places) for batch in batches] == [2, 2, 1, 2]
    for batch in batches:
        assert sum(layer.keys.nbytes + layer.values.nbytes for layer in batch.cache.layers) <= 100 * a_token


def test_a_row_that_moves_takes_its_tokens_along_and_the_others_stay():
    model = tiny(SHARED["qwen2"])
    with torch.no_grad():
        [batch] = read(model, [(1, 2), (3, 4), (5, 6), (7, 8)], group=1, spare=1)
    layer = batch.cache.layers[0]
    before = layer.keys.clone()
    batch.cache.reorder_cache(torch.tensor([0, 3, 2]))
    assert torch.equal(layer.keys[:, :, :2], before[[0, 3, 2], :, :2])


def test_which_models_share(monkeypatch):
    assert all(attends_to_all(tiny(build)) for build in SHARED.values())
    assert not any(attends_to_all(tiny(build)) for build in APART.values())
    flash = tiny(SHARED["qwen2"])
    flash.config._attn_implementation = "flash_attention_2"
    assert not attends_to_all(flash)


def test_a_model_that_takes_no_positions_is_refused():
    model = BloomForCausalLM(BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(DataError, match="BloomForCausalLM takes no position_ids.*choose a model"), torch.no_grad():
        read(model, [(1, 2)], group=1, spare=1)
