"""An exported model equals the checkpoint that it was exported from."""

import pytest
import torch
from safetensors import SafetensorError
from tests.inference.checkpoints import COMPONENTS, save_checkpoint

from minigpt.data.tokenizer import BPETokenizer, CharTokenizer
from minigpt.inference.load import load_model
from minigpt.inference.safetensors_export import export_safetensors
from minigpt.inference.text_generation import check_generation, generate_text
from minigpt.model.attention import BidirectionalAttention
from minigpt.model.objectives import MaskedTokens


@pytest.fixture(params=[CharTokenizer("abc"), BPETokenizer(vocab_size=257, merges=["a b"])], ids=["char", "bpe"])
def checkpoint(request, tmp_path):
    return save_checkpoint(tmp_path / "step_7.ckpt", request.param)


def test_the_exported_model_is_the_same(checkpoint, tmp_path):
    target = tmp_path / "model.safetensors"
    export_safetensors(load_model(checkpoint), str(target))
    one, two = load_model(checkpoint), load_model(target)
    tokens = torch.tensor([[0, 1, 2, 1]])
    assert torch.equal(one.model(tokens), two.model(tokens))
    assert (two.step, two.precision, two.text) == (7, "32-true", one.text)
    assert two.tokenizer.encode("cab").tolist() == one.tokenizer.encode("cab").tolist()
    assert two.tokenizer.state() == one.tokenizer.state() and "fingerprint" not in two.metadata


def test_an_encoder_is_loaded_with_its_mask_token_and_does_not_generate(tmp_path, capsys):
    components = COMPONENTS | {"attention": BidirectionalAttention}
    loaded = load_model(save_checkpoint(tmp_path / "step_7.ckpt", CharTokenizer("abc"), components, MaskedTokens))
    assert loaded.model.vocab_size == 4 and loaded.tokenizer.vocab_size == 3
    with pytest.raises(ValueError, match="trained for MaskedTokens, not to continue a text"):
        generate_text(loaded, {"prompt": "a", "num_samples": 1, "stop": None})
    export_safetensors(loaded, str(tmp_path / "model.safetensors"))
    assert "generate" not in capsys.readouterr().out


def test_nothing_is_overwritten(checkpoint, tmp_path):
    target = tmp_path / "model.safetensors"
    target.write_text("mine")
    with pytest.raises(ValueError, match=r"exists already: name another one with output="):
        export_safetensors(load_model(checkpoint), str(target))
    assert target.read_text() == "mine"


def test_an_export_that_cannot_be_written_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    loaded = load_model(checkpoint)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        export_safetensors(loaded, str(tmp_path / "nowhere/model.safetensors"))
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        export_safetensors(loaded, str(tmp_path / "folder.safetensors"))

    def fail(*args):
        raise SafetensorError("no space")

    monkeypatch.setattr("minigpt.inference.safetensors_export.save_file", fail)
    with pytest.raises(ValueError, match="cannot be written: no space"):
        export_safetensors(loaded, str(tmp_path / "model.safetensors"))
    assert {p.name for p in tmp_path.iterdir()} == {"step_7.ckpt", "folder.safetensors"}


def test_more_sequences_than_fit_in_memory_are_refused(checkpoint):
    loaded = load_model(checkpoint)
    check_generation(loaded, 1, 10**9)
    with pytest.raises(ValueError, match="generating 100,000,000 sequences of 500 tokens needs about"):
        check_generation(loaded, 10**8, 500)
