"""Encoders: what a folder says of pooling and prompts is what is done, and padding changes nothing."""

import json

import numpy as np
import pytest
import torch

from askwell import embeddings
from askwell.errors import DataError
from encoder_examples import encoder_in

TEXTS = ["the toe hurts", "a fever came on friday night", "no"]


def hidden(encoder, text):
    """The states of a text's tokens, read alone."""
    with torch.inference_mode():
        return encoder.model(**encoder.tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()


@pytest.mark.parametrize(
    ("config", "pooled"),
    [
        (None, lambda states: states.mean(axis=0)),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, lambda states: states.mean(axis=0)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, lambda states: states[0]),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, lambda states: states[-1]),
        ({"embedding_dimension": 16, "pooling_mode": "cls"}, lambda states: states[0]),
    ],
)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_is_its_tokens_pooled_as_the_folder_says_whatever_stands_beside_it(tmp_path, config, pooled, side):
    encoder = embeddings.load(str(encoder_in(tmp_path, TEXTS, pooling=config, side=side)))
    found = encoder.vectors(TEXTS, "passage")
    expected = [pooled(hidden(encoder, text)) for text in TEXTS]
    np.testing.assert_allclose(found, [row / np.linalg.norm(row) for row in expected], atol=1e-5)


def test_what_a_model_puts_before_questions_and_passages_is_put_there(tmp_path):
    prompts = {"query": "fever ", "passage": "friday "}
    plain = embeddings.load(str(encoder_in(tmp_path / "plain", TEXTS)))
    prompted = embeddings.load(str(encoder_in(tmp_path / "prompted", TEXTS, prompts=prompts)))
    for kind, before in (("question", "fever "), ("passage", "friday ")):
        np.testing.assert_array_equal(
            prompted.vectors(["the toe"], kind), plain.vectors([before + "the toe"], "passage")
        )


def test_many_texts_come_in_batches_and_none_is_none(tmp_path, monkeypatch):
    encoder = embeddings.load(str(encoder_in(tmp_path, TEXTS)))
    whole = encoder.vectors(TEXTS, "passage")
    monkeypatch.setattr(embeddings, "BATCH", 2)
    np.testing.assert_allclose(encoder.vectors(TEXTS, "passage"), whole, atol=1e-6)
    assert encoder.vectors([], "passage").shape[0] == 0


@pytest.mark.parametrize(
    ("pooling", "more", "says"),
    [
        ({"pooling_mode_max_tokens": True}, (), "max"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_weightedmean_tokens": True}, (), "weightedmean"),
        ({"pooling_mode_mean_tokens": True}, ("sentence_transformers.models.Dense",), "Dense"),
    ],
)
def test_a_model_with_parts_of_another_kind_is_refused(tmp_path, pooling, more, says):
    folder = encoder_in(tmp_path, TEXTS, pooling=pooling, more=more)
    with pytest.raises(DataError, match=f"an encoder with {says}"):
        embeddings.load(str(folder))


def test_what_is_no_encoder_is_a_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no encoder and tokenizer can be loaded"):
        embeddings.load(str(tmp_path / "empty"))


def test_the_vectors_are_of_float32_and_json_is_read_where_there_is_some(tmp_path):
    assert embeddings.json_in(tmp_path / "absent.json") == {}
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    assert embeddings.json_in(tmp_path / "x.json") == {"a": 1}
    assert embeddings.load(str(encoder_in(tmp_path, TEXTS))).vectors(TEXTS, "question").dtype == np.float32
