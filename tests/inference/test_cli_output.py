"""What evaluate.py and generate.py print, against an independent plain computation."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from tests.inference.checkpoints import save_checkpoint

from minigpt.data.tokenizer import CharTokenizer
from minigpt.inference import cli_output
from minigpt.inference.beam_search import beam_search
from minigpt.inference.cli_output import evaluate_run, generate_text
from minigpt.inference.load import load_model
from minigpt.inference.sampling import generate

GENERATE = {"run": "latest", "prompt": "ab", "prompt_file": None, "max_new_tokens": 6, "temperature": 0.9, "seed": 5}
GENERATE |= {"top_k": 3, "top_p": 0.95, "num_samples": 1, "num_beams": None, "length_penalty": 0.6, "stop": None}
GENERATE |= {"precision": "32-true", "device": "cpu"}
PROMPT = torch.tensor([[1, 2]])  # "\n", "a", "b", "c", ...


@pytest.fixture
def loaded(tmp_path):
    """A model with weights that are far from their start."""
    found = load_model(save_checkpoint(tmp_path / "step_7.ckpt", CharTokenizer("\nabcde")))
    for weight in found.model.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_samples_are_drawn_with_the_options_that_were_typed(loaded, capsys, count):
    generate_text(loaded, GENERATE | {"num_samples": count})
    options = {"max_new_tokens": 6, "temperature": 0.9, "top_k": 3, "top_p": 0.95}
    drawn = generate(loaded.model, PROMPT.expand(count, -1), **options, generator=torch.Generator().manual_seed(5))
    texts = ["ab" + loaded.tokenizer.decode(sample) for sample in torch.stack(list(drawn), dim=1).tolist()]
    expected = [f"{texts[0]}\n"] if count == 1 else [f"--- {n}\n{text}\n" for n, text in enumerate(texts, start=1)]
    assert capsys.readouterr().out == "".join(expected)


@pytest.mark.parametrize("stop", [None, "c"])
@pytest.mark.parametrize("length_penalty", [0.0, 3.0])
def test_beams_are_searched_with_the_options_that_were_typed(loaded, capsys, stop, length_penalty):
    config = {"num_beams": 4, "num_samples": 2, "stop": stop, "length_penalty": length_penalty}
    generate_text(loaded, GENERATE | config)
    options = {"num_beams": 4, "length_penalty": length_penalty, "max_new_tokens": 6, "block_size": 8}
    stop_token = None if stop is None else loaded.tokenizer.encode(stop).item()
    found, _ = beam_search(loaded.model, loaded.model.make_cache(), PROMPT, **options, stop_token=stop_token)
    texts = [loaded.tokenizer.decode(ids) for ids in found[0, :2].tolist()]
    if stop is not None:
        texts = [text[: text.index(stop) + 1] if stop in text else text for text in texts]
    assert capsys.readouterr().out == "".join(f"--- {n}\nab{text}\n" for n, text in enumerate(texts, start=1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stop": "ab"}, "stop='ab' must be one character"),
        ({"stop": ""}, "stop='' must be one character"),
        ({"prompt": ""}, "prompt is empty"),
        ({"num_beams": 2, "num_samples": 3}, "num_samples=3 of a search"),
    ],
)
def test_what_cannot_be_generated_is_refused(loaded, config, message):
    with pytest.raises(ValueError, match=message):
        generate_text(loaded, GENERATE | config)


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_text_is_generated_in_the_precision_that_was_typed(loaded, monkeypatch, precision, dtype):
    used = []
    monkeypatch.setattr(cli_output, "print_samples", lambda loaded, config: used.append(loaded.model.head.weight.dtype))
    generate_text(loaded, GENERATE | {"precision": precision})
    assert used == [dtype]


def test_a_perplexity_beyond_a_float_is_null(loaded, tmp_path, capsys):
    for weight in loaded.model.parameters():
        weight.data.mul_(1000.0)
    (tmp_path / "other.txt").write_text("abcde" * 5)
    config = {"eval_text": str(tmp_path / "other.txt"), "precision": None, "paths": {"data_dir": str(tmp_path)}}
    assert evaluate_run(loaded, config) > 100
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert report["val_perplexity"] is None and report["val_loss"] > 100


def test_a_loss_that_is_not_a_number_is_no_result(loaded, tmp_path, capsys):
    loaded.model.head.weight.data[0, 0] = math.nan
    (tmp_path / "other.txt").write_text("abcde" * 5)
    config = {"eval_text": str(tmp_path / "other.txt"), "precision": None, "paths": {"data_dir": str(tmp_path)}}
    with pytest.raises(ValueError, match=r"the loss of .*step_7.ckpt .* is not a number"):
        evaluate_run(loaded, config)
    assert capsys.readouterr().out == ""


def test_a_text_is_scored_exactly(loaded, tmp_path, capsys):
    """In blocks of 8 tokens, the last one shorter; a token is a character here."""
    text = "abcde\nedcba\nabc" * 5
    (tmp_path / "other.txt").write_text(text)
    config = {"eval_text": str(tmp_path / "other.txt"), "precision": None, "paths": {"data_dir": str(tmp_path)}}
    returned = evaluate_run(loaded, config)
    tokens = torch.from_numpy(loaded.tokenizer.encode(text).astype("int64"))
    loss, correct = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(tokens) - 1, 8):
            inputs, targets = tokens[start : start + 8][: len(tokens) - 1 - start], tokens[start + 1 : start + 9]
            logits = loaded.model(inputs[None])[0]
            loss += F.cross_entropy(logits, targets, reduction="sum").item()
            correct += (logits.argmax(-1) == targets).sum().item()
    mean, report = loss / (len(text) - 1), json.loads(capsys.readouterr().out)
    assert (report["tokens"], report["characters"], report["step"]) == (len(text) - 1, len(text), 7)
    assert report["checkpoint"] == str(loaded.path) and report["text"] == str(tmp_path / "other.txt")
    assert report["val_loss"] == returned == pytest.approx(mean, rel=1e-5)
    assert report["val_bpc"] == pytest.approx(mean / math.log(2), rel=1e-5)
    assert report["val_perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
    assert report["val_accuracy"] == pytest.approx(correct / (len(text) - 1))
