"""Llama, and Mixtral with a mixture of experts in the place of its MLP: RMSNorm, rotary positions, SwiGLU."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from minigpt.interop.architecture import Architecture, Config, Weight, component, positive, refuse_others
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import RotaryPositions
from minigpt.model.gpt import GPT, Block
from minigpt.model.layers import RMSNorm, SwiGLU
from minigpt.model.moe import MixtureOfExperts


class Llama(Architecture):
    """Llama (arXiv 2302.13971), with grouped-query attention. A `GPT` whose norms have no weight has ones there."""

    model_type = "llama"
    class_name = "LlamaForCausalLM"
    embedding_name = "model.embed_tokens.weight"
    tied_by_default = False

    def sizes(self, model: GPT) -> Config | None:
        block, norm, positions = model.blocks[0], model.norm, model.positions
        attention = block.attention
        if type(attention) is not CausalSelfAttention or type(norm) is not RMSNorm or not isinstance(block, Block):
            return None
        mlp = self.mlp_sizes(block.mlp, attention.qkv_proj.bias is not None)
        if attention.qk_norm or type(positions) is not RotaryPositions or mlp is None:
            return None
        return {
            "max_position_embeddings": model.block_size,
            "hidden_size": model.head.in_features,
            "num_hidden_layers": len(model.blocks),
            "num_attention_heads": attention.num_heads,
            "num_key_value_heads": attention.num_kv_heads,
            "head_dim": attention.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": norm.eps,
            "rope_theta": positions.base,  # of transformers 4, and of other readers
            "rope_parameters": {"rope_type": "default", "rope_theta": positions.base},
            "attention_dropout": attention.dropout,
        } | mlp

    def mlp_sizes(self, mlp: nn.Module, attention_bias: bool) -> Config | None:
        """Return the entries of config.json about the MLP and the biases; None for another architecture."""
        if type(mlp) is not SwiGLU:
            return None
        biases = {"attention_bias": attention_bias, "mlp_bias": mlp.down.bias is not None}
        return {"intermediate_size": mlp.down.in_features} | biases

    def options(self, config: Config) -> dict[str, Any]:
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if not isinstance(rope, dict):
            raise ValueError("config.json: rope_parameters must be a mapping")
        refuse_others(rope, {"rope_type": "default", "type": "default"})
        dim, num_heads = positive(config, "hidden_size"), positive(config, "num_attention_heads")
        refuse_others(config, {"hidden_act": "silu"})
        if positive(config, "head_dim", dim // num_heads) * num_heads != dim:
            raise ValueError(
                f"config.json: head_dim={config['head_dim']} times num_attention_heads must be hidden_size"
            )
        return component(
            GPT,
            block_size=positive(config, "max_position_embeddings"),
            num_layers=positive(config, "num_hidden_layers"),
            num_heads=num_heads,
            dim=dim,
            attention=component(
                CausalSelfAttention,
                num_kv_heads=positive(config, "num_key_value_heads", num_heads),
                bias=bool(config.get("attention_bias")),
            ),
            mlp=self.mlp_options(config),
            norm=component(RMSNorm, elementwise_affine=True, eps=float(config.get("rms_norm_eps", 1e-6))),
            positions=component(RotaryPositions, base=rope_base(config, rope)),
            tie_head=config["tie_word_embeddings"],
        )

    def mlp_options(self, config: Config) -> dict[str, Any]:
        """Return the node of the MLP."""
        return component(SwiGLU, hidden_dim=positive(config, "intermediate_size"), bias=bool(config.get("mlp_bias")))

    def weights(self, config: Config) -> Iterator[Weight]:
        heads, dim = positive(config, "num_attention_heads"), positive(config, "hidden_size")
        kv_rows = dim // heads * positive(config, "num_key_value_heads", heads)
        yield Weight("embedding.weight", (self.embedding_name,))
        for i in range(config["num_hidden_layers"]):
            ours, theirs = f"blocks.{i}", f"model.layers.{i}"
            yield Weight(f"{ours}.attention_norm.weight", (f"{theirs}.input_layernorm.weight",))
            for kind in ("weight", "bias") if config.get("attention_bias") else ("weight",):
                names = tuple(f"{theirs}.self_attn.{name}_proj.{kind}" for name in "qkv")
                yield Weight(f"{ours}.attention.qkv_proj.{kind}", names, (dim, kv_rows, kv_rows))
                yield Weight(f"{ours}.attention.out_proj.{kind}", (f"{theirs}.self_attn.o_proj.{kind}",))
            yield Weight(f"{ours}.mlp_norm.weight", (f"{theirs}.post_attention_layernorm.weight",))
            yield from self.mlp_weights(config, f"{ours}.mlp", theirs)
        yield Weight("norm.weight", ("model.norm.weight",))
        yield Weight("head.weight", ("lm_head.weight",))

    def mlp_weights(self, config: Config, ours: str, theirs: str) -> Iterator[Weight]:
        """Yield the weights of the MLP of a layer."""
        rows = positive(config, "intermediate_size")
        for kind in ("weight", "bias") if config.get("mlp_bias") else ("weight",):
            names = tuple(f"{theirs}.mlp.{name}_proj.{kind}" for name in ("gate", "up"))
            yield Weight(f"{ours}.gate_up.{kind}", names, (rows, rows))
            yield Weight(f"{ours}.down.{kind}", (f"{theirs}.mlp.down_proj.{kind}",))


class Mixtral(Llama):
    """Mixtral (arXiv 2401.04088): the names of the experts are those of its published weights."""

    model_type = "mixtral"
    class_name = "MixtralForCausalLM"

    def mlp_sizes(self, mlp: nn.Module, attention_bias: bool) -> Config | None:
        if type(mlp) is not MixtureOfExperts or attention_bias:
            return None
        expert = mlp.experts[0]
        assert isinstance(expert, SwiGLU)
        return {
            "intermediate_size": expert.down.in_features,
            "num_local_experts": len(mlp.experts),
            "num_experts_per_tok": mlp.top_k,
            "router_aux_loss_coef": mlp.aux_loss_coef,
            "sliding_window": None,
        }

    def mlp_options(self, config: Config) -> dict[str, Any]:
        refuse_others(config, {"sliding_window": None, "attention_bias": False})
        return component(
            MixtureOfExperts,
            num_experts=positive(config, "num_local_experts"),
            top_k=positive(config, "num_experts_per_tok"),
            hidden_dim=positive(config, "intermediate_size"),
        )

    def mlp_weights(self, config: Config, ours: str, theirs: str) -> Iterator[Weight]:
        rows, experts = positive(config, "intermediate_size"), f"{theirs}.block_sparse_moe"
        yield Weight(f"{ours}.router.weight", (f"{experts}.gate.weight",))
        for e in range(positive(config, "num_local_experts")):
            names = (f"{experts}.experts.{e}.w1.weight", f"{experts}.experts.{e}.w3.weight")
            yield Weight(f"{ours}.experts.{e}.gate_up.weight", names, (rows, rows))
            yield Weight(f"{ours}.experts.{e}.down.weight", (f"{experts}.experts.{e}.w2.weight",))


def rope_base(config: Config, rope: Config) -> float:
    """Return the base of the rotary angles: transformers 5 and 4 have it in different places."""
    value = rope.get("rope_theta", config.get("rope_theta", 10_000.0))
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"config.json: rope_theta must be a positive number, not {value!r}")
    return float(value)
