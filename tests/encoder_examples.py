"""A small encoder made on the spot, as a folder of `transformers`, or of sentence-transformers."""

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def encoder_in(folder, texts, *, layers=1, pooling=None, more=(), prompts=None, side="right"):
    """Writes an encoder of random weights that knows the words of some texts. Without layers it is a bag of words:
    what two texts share makes them near."""
    folder.mkdir(exist_ok=True)
    words = sorted({word for text in texts for word in text.lower().replace("?", "").replace(".", "").split()})
    vocabulary = {word: place for place, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        padding_side=side,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = 16 if layers else 64
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=size,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * size,
            max_position_embeddings=64,
            position_embedding_type="absolute",
        )
        model = BertModel(config)
        with torch.no_grad():
            model.embeddings.word_embeddings.weight.normal_()
            for place in (model.embeddings.position_embeddings, model.embeddings.token_type_embeddings):
                place.weight.zero_()
            if not layers:  # what is no word tells nothing
                model.embeddings.word_embeddings.weight[[0, 2, 3]] = 1e-3
    model.save_pretrained(folder)
    if pooling is not None:
        kinds = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling", *more]
        paths = ["", "1_Pooling", *(f"{place}_More" for place in range(2, 2 + len(more)))]
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": kind}
            for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder
