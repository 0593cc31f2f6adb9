"""Parity of logits with Hugging Face's GPT-2, Llama and Mixtral, for random weights."""

from functools import partial

import pytest
import torch

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import LearnedPositions, RotaryPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import MLP, LayerNorm, RMSNorm, SwiGLU
from minigpt.model.moe import MixtureOfExperts

SIZES = {"vocab_size": 19, "block_size": 16, "num_layers": 2, "num_heads": 4, "dim": 32}
COMMON = {"vocab_size": 19, "bos_token_id": 0, "eos_token_id": 0}
LLAMA = COMMON | {
    "max_position_embeddings": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "rms_norm_eps": 1e-6,
}
GPT2_NAMES = {
    "transformer.": "",
    "h.": "blocks.",
    "wte": "embedding",
    "wpe": "positions.embedding",
    "ln_f": "norm",
    "ln_1": "attention_norm",
    "ln_2": "mlp_norm",
    "attn.c_attn": "attention.qkv_proj",
    "attn.c_proj": "attention.out_proj",
    "c_fc": "up",
    "mlp.c_proj": "mlp.down",
    "lm_head": "head",
}


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    # OpenAI's weights were trained with an approximate GELU; ours is exact.
    config = {"n_positions": 16, "n_layer": 2, "n_head": 4, "n_embd": 32, "activation_function": "gelu"}
    theirs = randomized(GPT2LMHeadModel(GPT2Config(**COMMON, **config)))
    ours = GPT(
        **SIZES,
        attention=partial(CausalSelfAttention, bias=True),
        mlp=partial(MLP, bias=True),
        norm=partial(LayerNorm, bias=True),
        positions=LearnedPositions,
        tie_head=True,
    )
    weights = {}
    for name, weight in theirs.state_dict().items():
        transposed = ".c_" in name and weight.ndim == 2  # GPT-2's matrices are stored as [in, out]
        for old, new in GPT2_NAMES.items():
            name = name.replace(old, new)
        weights[name] = weight.T if transposed else weight
    return theirs, ours, weights


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    theirs = randomized(LlamaForCausalLM(LlamaConfig(**LLAMA)))
    weights = llama_weights(theirs)
    for i, layer in enumerate(theirs.model.layers):
        weights[f"blocks.{i}.mlp.gate_up.weight"] = torch.cat((layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight))
        weights[f"blocks.{i}.mlp.down.weight"] = layer.mlp.down_proj.weight
    return theirs, llama_like(partial(SwiGLU, hidden_dim=48), base=10_000.0), weights


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(**LLAMA, num_local_experts=4, num_experts_per_tok=2, sliding_window=None)
    theirs = randomized(MixtralForCausalLM(config))
    weights = llama_weights(theirs)
    for i, layer in enumerate(theirs.model.layers):
        weights[f"blocks.{i}.mlp.router.weight"] = layer.mlp.gate.weight
        for e in range(4):
            weights[f"blocks.{i}.mlp.experts.{e}.gate_up.weight"] = layer.mlp.experts.gate_up_proj[e]
            weights[f"blocks.{i}.mlp.experts.{e}.down.weight"] = layer.mlp.experts.down_proj[e]
    base = config.rope_parameters["rope_theta"]
    return theirs, llama_like(partial(MixtureOfExperts, hidden_dim=48, num_experts=4, top_k=2), base), weights


def llama_like(mlp, base):
    return GPT(
        **SIZES,
        attention=partial(CausalSelfAttention, num_kv_heads=2),
        mlp=mlp,
        norm=partial(RMSNorm, elementwise_affine=True),
        positions=partial(RotaryPositions, base=base),
    )


def llama_weights(theirs):
    """All weights but those of the MLPs, where Mixtral differs."""
    weights = {
        "embedding.weight": theirs.model.embed_tokens.weight,
        "norm.weight": theirs.model.norm.weight,
        "head.weight": theirs.lm_head.weight,
    }
    for i, layer in enumerate(theirs.model.layers):
        qkv = [getattr(layer.self_attn, f"{name}_proj").weight for name in "qkv"]
        weights[f"blocks.{i}.attention.qkv_proj.weight"] = torch.cat(qkv)
        weights[f"blocks.{i}.attention.out_proj.weight"] = layer.self_attn.o_proj.weight
        weights[f"blocks.{i}.attention_norm.weight"] = layer.input_layernorm.weight
        weights[f"blocks.{i}.mlp_norm.weight"] = layer.post_attention_layernorm.weight
    return weights


def randomized(model):
    """Large weights, so that logits vary by far more than the tolerance."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("make", [gpt2, llama, mixtral])
def test_logits_equal_hugging_faces(make):
    theirs, ours, weights = make()
    ours.load_state_dict(weights)
    tokens = torch.randint(19, (3, 16))
    expected = theirs(tokens).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(ours.eval()(tokens), expected, atol=1e-4, rtol=0)
