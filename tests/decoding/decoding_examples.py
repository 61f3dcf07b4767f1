"""Tiny models of several families, with weights so large that no greedy choice hangs on the last digit."""

import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
GPT2_SIZES = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
CONV_SIZES = {**SIZES, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
NO_ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}

# What shares contexts, and what is read apart: a window, learned distances, a recurrent layer.
SHARED = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="eager")),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2_SIZES, **NO_ENDS)),
}
APART = {
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=6)),
    "falcon": lambda: FalconForCausalLM(
        FalconConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            alibi=True,
            attn_implementation="eager",
            **NO_ENDS,
        )
    ),
    "lfm2": lambda: Lfm2ForCausalLM(Lfm2Config(**CONV_SIZES, block_auto_adjust_ff_dim=False)),
}


def tiny(build, *, scale=6.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.mul_(scale)
    return model.eval()


def tokens(count, *, seed):
    return torch.randint(1, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def dialogue_contexts():
    """Contexts that begin with one another, one twice, and others of unequal length."""
    longest = tokens(30, seed=1)
    return [longest[:12], longest[:5], longest[:12], longest, *(tokens(count, seed=count) for count in (1, 3, 9, 25))]
