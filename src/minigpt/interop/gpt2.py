"""GPT-2: LayerNorm, learned positions, an MLP without gates, biases."""

from collections.abc import Iterator
from typing import Any

from minigpt.interop.architecture import Architecture, Config, Weight, component, positive, refuse_others
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import LearnedPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import MLP, LayerNorm, ReLU2MLP, ReLUMLP, TanhGELUMLP

ACTIVATIONS = {"gelu": MLP, "gelu_new": TanhGELUMLP, "relu": ReLUMLP, "relu2": ReLU2MLP}
LAYER = {  # of a block, in the order of the computation; those that are transposed are GPT-2's Conv1D
    "attention_norm": "ln_1",
    "attention.qkv_proj": "attn.c_attn",
    "attention.out_proj": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}


class GPT2(Architecture):
    """GPT-2 (Radford et al., 2019). A `GPT` without biases has zeros for them there."""

    model_type = "gpt2"
    class_name = "GPT2LMHeadModel"
    embedding_name = "transformer.wte.weight"
    tied_by_default = True

    def sizes(self, model: GPT) -> Config | None:
        attention, mlp, norm = model.blocks[0].attention, model.blocks[0].mlp, model.norm
        activation = next((name for name, cls in ACTIVATIONS.items() if type(mlp) is cls), None)
        if not isinstance(attention, CausalSelfAttention) or not isinstance(mlp, MLP) or type(norm) is not LayerNorm:
            return None
        is_plain = type(attention) is CausalSelfAttention and not attention.qk_norm and activation is not None
        if (
            not is_plain
            or attention.num_kv_heads != attention.num_heads
            or type(model.positions) is not LearnedPositions
        ):
            return None
        return {
            "n_positions": model.block_size,
            "n_embd": model.head.in_features,
            "n_layer": len(model.blocks),
            "n_head": attention.num_heads,
            "n_inner": mlp.up.out_features,
            "activation_function": activation,
            "layer_norm_epsilon": norm.eps,
            "resid_pdrop": model.dropout.p,
            "embd_pdrop": model.dropout.p,
            "attn_pdrop": attention.dropout,
        }

    def options(self, config: Config) -> dict[str, Any]:
        others = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
        refuse_others(config, others)
        activation = config.get("activation_function", "gelu_new")
        activation = "gelu_new" if activation == "gelu_pytorch_tanh" else activation
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"config.json: activation_function={activation!r} is not supported, only {known}")
        dim = positive(config, "n_embd")
        hidden_dim = positive(config, "n_inner", 4 * dim)
        return component(
            GPT,
            block_size=positive(config, "n_positions"),
            num_layers=positive(config, "n_layer"),
            num_heads=positive(config, "n_head"),
            dim=dim,
            attention=component(CausalSelfAttention, bias=True),
            mlp=component(ACTIVATIONS[activation], hidden_dim=hidden_dim, bias=True),
            norm=component(LayerNorm, bias=True, eps=float(config.get("layer_norm_epsilon", 1e-5))),
            positions=component(LearnedPositions),
            tie_head=config["tie_word_embeddings"],
        )

    def full_name(self, name: str) -> str:
        return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"  # OpenAI's own file

    def weights(self, config: Config) -> Iterator[Weight]:
        yield Weight("embedding.weight", (self.embedding_name,))
        yield Weight("positions.embedding.weight", ("transformer.wpe.weight",))
        for i in range(config["n_layer"]):
            for ours, theirs in LAYER.items():
                for kind in ("weight", "bias"):
                    transposed = kind == "weight" and ".c_" in theirs
                    name = f"transformer.h.{i}.{theirs}.{kind}"
                    yield Weight(f"blocks.{i}.{ours}.{kind}", (name,), transposed=transposed)
        yield Weight("norm.weight", ("transformer.ln_f.weight",))
        yield Weight("norm.bias", ("transformer.ln_f.bias",))
        yield Weight("head.weight", ("lm_head.weight",))
