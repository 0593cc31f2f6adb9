"""A tiny checkpoint, as training writes it, for the tests of this directory."""

from functools import partial

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import LearnedPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import MLP, LayerNorm
from minigpt.model.objectives import NextToken
from minigpt.runs.checkpoint_io import AtomicCheckpointIO

SIZES = {"block_size": 8, "num_layers": 1, "num_heads": 2, "dim": 16, "tie_head": True}
COMPONENTS = {"attention": CausalSelfAttention, "mlp": MLP, "norm": LayerNorm, "positions": LearnedPositions}


def save_checkpoint(path, tokenizer, components=COMPONENTS, objective=NextToken, text=None):
    """Write a checkpoint of a GPT with a tied head at step 7, and return its path; `text` is added to its metadata."""
    size = tokenizer.vocab_size + objective.num_special_tokens
    model = GPT(vocab_size=size, **SIZES, **{k: partial(v) for k, v in components.items()})
    named = {k: {"_target_": f"{v.__module__}.{v.__name__}", "_partial_": True} for k, v in components.items()}
    metadata = {
        "model": {"_target_": "minigpt.model.gpt.GPT", "_partial_": True, **SIZES, **named},
        "objective": {"_target_": f"minigpt.model.objectives.{objective.__name__}"},
        "tokenizer": tokenizer.state(),
        "precision": "32-true",
        "text": {"path": "x.txt", "sha256": "0", "val_fraction": 0.1, "val_batch_size": 4, "block_size": 8}
        | (text or {}),
        "fingerprint": {"seed": 1},
    }
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint({"minigpt": metadata, "state_dict": state, "global_step": 7}, path)
    return path
