"""Tiny models with random weights, as training saves them, for the tests of this directory."""

import torch

from minigpt.model import objectives
from minigpt.model.assembly import assemble
from minigpt.model.components import COMPONENTS
from minigpt.runs.checkpoint_io import AtomicCheckpointIO

SIZES = {"block_size": 16, "num_layers": 2, "num_heads": 4, "dim": 32}


def node(name, **options):
    """A component of minigpt.model as a configuration has it."""
    return {"_target_": f"minigpt.model.{name}", "_partial_": True, **options}


def gpt(attention, mlp, norm, positions, **options):
    return node("gpt.GPT", **SIZES, attention=attention, mlp=mlp, norm=norm, positions=positions, **options)


CAUSAL = node("attention.CausalSelfAttention")
RMS, ROTARY = node("layers.RMSNorm"), node("embeddings.RotaryPositions")
GPT2 = gpt(CAUSAL, node("layers.MLP"), node("layers.LayerNorm"), node("embeddings.LearnedPositions"), tie_head=True)
LLAMA = gpt(
    CAUSAL | {"num_kv_heads": 2}, node("layers.SwiGLU", hidden_dim=48), RMS | {"elementwise_affine": True}, ROTARY
)
MOE = node("moe.MixtureOfExperts", num_experts=4, top_k=2, hidden_dim=24)
MODERN = gpt(
    CAUSAL | {"qk_norm": True}, node("layers.ReLU2MLP"), RMS, ROTARY, block=node("convolution.ConvolutionBlock")
)


def save_model(path, options, tokenizer, objective="NextToken", std=0.3):
    """Write a checkpoint with weights so large that logits vary by far more than a tolerance; return its path."""
    size = tokenizer.vocab_size + getattr(objectives, objective).num_special_tokens
    model = assemble(options, COMPONENTS.__getitem__)(vocab_size=size)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    text = {"path": "a/play.txt", "sha256": "0", "val_fraction": 0.1, "val_batch_size": 4}
    metadata = {
        "model": options,
        "objective": {"_target_": f"minigpt.model.objectives.{objective}"},
        "tokenizer": tokenizer.state(),
        "precision": "32-true",
        "text": text | {"block_size": options["block_size"]},
        "fingerprint": {"seed": 1},
    }
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint({"minigpt": metadata, "state_dict": state, "global_step": 7}, path)
    return path
