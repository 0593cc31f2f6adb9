"""What a report shows of a model, against the model itself."""

from dataclasses import replace

import pytest
import torch
from tests.inference.checkpoints import save_checkpoint

from minigpt.data.text_files import file_hash
from minigpt.data.tokenizer import BPETokenizer, CharTokenizer
from minigpt.inference.load import load_model
from minigpt.inference.model_analysis import MAX_CHARACTERS, analyze_model
from minigpt.model.gpt import Bigram
from minigpt.model.objectives import MaskedTokens, NextToken

TEXT = "First Citizen: speak, é!\n" * 40


def load(tmp_path, tokenizer=None, objective=NextToken, **text):
    """A model with random weights, and its text of 1,000 characters, of which the last 100 are for validation."""
    (tmp_path / "play.txt").write_text(TEXT)
    about = {"path": "play.txt", "sha256": file_hash(tmp_path / "play.txt"), "example_prompt": "First Citizen:"}
    tokenizer = tokenizer or CharTokenizer(TEXT)
    loaded = load_model(save_checkpoint(tmp_path / "a.ckpt", tokenizer, objective=objective, text=about | text))
    for parameter in loaded.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return loaded


def test_predictions_and_attention_are_the_model_s(tmp_path):
    loaded = load(tmp_path)
    analysis = analyze_model(loaded, str(tmp_path))
    prompt = loaded.tokenizer.encode("First Ci").tolist()
    assert analysis.prompt == prompt, "as long as the block"
    assert (analysis.step, analysis.unit, analysis.problem) == (7, "character", None)
    probabilities = loaded.model(torch.tensor([prompt]))[0].softmax(-1).detach()
    assert [p.length for p in analysis.predictions] == list(range(1, 8))
    for prediction in analysis.predictions:
        row = probabilities[prediction.length - 1]
        order = row.argsort(descending=True).tolist()
        assert prediction.actual == prompt[prediction.length]
        assert prediction.probability == pytest.approx(row[prediction.actual].item(), rel=1e-5)
        assert prediction.rank == order.index(prediction.actual) + 1
        assert [token for token, _ in prediction.candidates] == order[:6]
        assert [p for _, p in prediction.candidates] == pytest.approx(row[order[:6]].tolist(), rel=1e-5)
    (maps,) = loaded.model.attention_maps(torch.tensor([prompt]))
    torch.testing.assert_close(torch.tensor(analysis.attention), maps)


def test_a_bounded_part_of_the_validation_split_is_scored(tmp_path, monkeypatch):
    loaded = load(tmp_path)
    analysis = analyze_model(loaded, str(tmp_path))
    assert analysis.characters == 100 and analysis.scores.total().tokens == 99
    monkeypatch.setattr("minigpt.inference.model_analysis.MAX_CHARACTERS", 30)
    analysis = analyze_model(loaded, str(tmp_path))
    assert analysis.characters == 30 and analysis.scores.total().tokens == 29
    monkeypatch.setattr("minigpt.inference.model_analysis.MAX_CHARACTERS", MAX_CHARACTERS)
    monkeypatch.setattr("minigpt.inference.model_analysis.MAX_PRODUCTS", 1)
    assert analyze_model(loaded, str(tmp_path)).characters == 9, "one block of a model that is too large for more"


def test_the_prompt_is_the_beginning_of_the_text_or_the_example_without_one(tmp_path):
    loaded = load(tmp_path, example_prompt="speak, ROMEO")
    assert loaded.tokenizer.decode(analyze_model(loaded, str(tmp_path)).prompt) == "First Ci"
    (tmp_path / "play.txt").unlink()
    assert loaded.tokenizer.decode(analyze_model(loaded, str(tmp_path)).prompt) == "speak, ", "what it knows of it"


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_without_its_text_a_model_still_has_attention_and_predictions(tmp_path, damage):
    loaded = load(tmp_path)
    if damage == "missing":
        (tmp_path / "play.txt").unlink()
    else:
        (tmp_path / "play.txt").write_text(TEXT + "more")
    analysis = analyze_model(loaded, str(tmp_path))
    assert analysis.scores is None and "the training" in analysis.problem and "\n" not in analysis.problem
    assert analysis.attention and analysis.predictions


def test_what_does_not_apply_is_left_out(tmp_path):
    masked = analyze_model(load(tmp_path, objective=MaskedTokens), str(tmp_path))
    assert masked.attention and masked.scores is not None and masked.predictions == []
    loaded = load(tmp_path)
    bigram = Bigram(vocab_size=loaded.tokenizer.vocab_size, block_size=8).eval()
    analysis = analyze_model(replace(loaded, model=bigram), str(tmp_path))
    assert analysis.attention == [] and len(analysis.predictions) == 7 and analysis.scores is not None
    loaded = load(tmp_path, example_prompt="")
    (tmp_path / "play.txt").unlink()
    unprompted = analyze_model(loaded, str(tmp_path))
    assert unprompted.prompt == unprompted.attention == unprompted.predictions == []
    tokens = BPETokenizer(vocab_size=270).train(TEXT, [TEXT])
    assert analyze_model(load(tmp_path, tokens), str(tmp_path)).unit == "token"
