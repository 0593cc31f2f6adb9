"""An exported model is the same model, and a hostile file is none."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from minigpt.data.tokenizer import BPETokenizer, CharTokenizer
from minigpt.inference.export import export_safetensors
from minigpt.inference.load import load_average, load_trained
from minigpt.inference.report import write
from minigpt.model.attention import BidirectionalAttention, CausalSelfAttention
from minigpt.model.gpt import GPT
from minigpt.model.mlp import MLP
from minigpt.model.norms import LayerNorm
from minigpt.model.objectives import MaskedTokens, NextToken
from minigpt.model.positions import LearnedPositions
from minigpt.runs.checkpoints import AtomicCheckpointIO, load_checkpoint

SIZES = {"block_size": 8, "num_layers": 1, "num_heads": 2, "dim": 16, "tie_head": True}
PARTS = {"attention": CausalSelfAttention, "mlp": MLP, "norm": LayerNorm, "positions": LearnedPositions}


def save_checkpoint(path, tokenizer, parts=PARTS, objective=NextToken):
    """A checkpoint with a tied head, as a training leaves it."""
    size = tokenizer.vocab_size + objective.extra_tokens
    model = GPT(vocab_size=size, **SIZES, **{k: partial(v) for k, v in parts.items()})
    named = {k: {"_target_": f"{v.__module__}.{v.__name__}", "_partial_": True} for k, v in parts.items()}
    description = {
        "model": {"_target_": "minigpt.model.gpt.GPT", "_partial_": True, **SIZES, **named},
        "objective": {"_target_": f"minigpt.model.objectives.{objective.__name__}"},
        "tokenizer": tokenizer.state(),
        "precision": "32-true",
        "text": {"path": "x.txt", "sha256": "0", "val_fraction": 0.1, "val_batch_size": 4, "block_size": 8},
        "fingerprint": {"seed": 1},
    }
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint({"minigpt": description, "state_dict": state, "global_step": 7}, path)
    return path


@pytest.fixture(params=[CharTokenizer("abc"), BPETokenizer(vocab_size=257, merges=["a b"])], ids=["char", "bpe"])
def checkpoint(request, tmp_path):
    return save_checkpoint(tmp_path / "step_7.ckpt", request.param)


def test_the_exported_model_is_the_same(checkpoint, tmp_path):
    target = tmp_path / "model.safetensors"
    export_safetensors(load_trained(checkpoint), str(target))
    one, two = load_trained(checkpoint), load_trained(target)
    tokens = torch.tensor([[0, 1, 2, 1]])
    assert torch.equal(one.model(tokens), two.model(tokens))
    assert (two.step, two.precision, two.text) == (7, "32-true", one.text)
    assert two.tokenizer.encode("cab").tolist() == one.tokenizer.encode("cab").tolist()
    assert two.tokenizer.state() == one.tokenizer.state() and "fingerprint" not in two.description


def test_the_newest_checkpoints_are_averaged(checkpoint):
    content, other = load_checkpoint(checkpoint), load_checkpoint(checkpoint)
    for state in (content["state_dict"], other["state_dict"]):
        for weight in state.values():
            weight.normal_()
    AtomicCheckpointIO().save_checkpoint(content | {"global_step": 8}, checkpoint.with_name("step_8.ckpt"))
    AtomicCheckpointIO().save_checkpoint(other | {"global_step": 10}, checkpoint.with_name("step_10.ckpt"))
    averaged = load_average(checkpoint.parent, 2)
    name, weight = next(iter(averaged.model.named_parameters()))
    expected = (content["state_dict"][f"model.{name}"] + other["state_dict"][f"model.{name}"]) / 2
    torch.testing.assert_close(weight.detach(), expected)
    assert averaged.step == 10
    with pytest.raises(ValueError, match="has 3 checkpoints of steps, not 4"):
        load_average(checkpoint.parent, 4)


def test_an_encoder_is_loaded_with_its_mask_token_and_does_not_generate(tmp_path, capsys):
    parts = PARTS | {"attention": BidirectionalAttention}
    trained = load_trained(save_checkpoint(tmp_path / "step_7.ckpt", CharTokenizer("abc"), parts, MaskedTokens))
    assert trained.model.vocab_size == 4 and trained.tokenizer.vocab_size == 3
    with pytest.raises(ValueError, match="not to go on with a text"):
        write(trained, {"prompt": "a", "num_samples": 1})
    export_safetensors(trained, str(tmp_path / "model.safetensors"))
    assert "generate" not in capsys.readouterr().out


def test_nothing_is_overwritten(checkpoint, tmp_path):
    target = tmp_path / "model.safetensors"
    target.write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        export_safetensors(load_trained(checkpoint), str(target))
    assert target.read_text() == "mine"
    with pytest.raises(ValueError, match="must end in"):
        export_safetensors(load_trained(checkpoint), str(tmp_path / "model.pt"))


@pytest.mark.parametrize("target", ["os.system", "minigpt.runs.run.open_run", "torch.nn.Linear"])
def test_a_foreign_class_is_not_built(tmp_path, target):
    description = {"model": {"_target_": target}, "tokenizer": CharTokenizer("abc").state(), "step": 1}
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors", {"minigpt": json.dumps(description)})
    with pytest.raises(ValueError, match="not a part of a model"):
        load_trained(tmp_path / "x.safetensors")
