"""An encoder-decoder from its lines to the output of the commands, trained by the LightningModule in a second."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from minigpt.data.denoising import DenoisingDataModule
from minigpt.data.tokenizer import CharTokenizer
from minigpt.inference.denoise_lines import denoise, score_denoising
from minigpt.inference.evaluation import evaluate_run
from minigpt.inference.load import LoadedModel
from minigpt.inference.model_analysis import analyze_model
from minigpt.inference.text_generation import generate_text
from minigpt.model.attention import BidirectionalAttention, CausalSelfAttention, CrossAttention
from minigpt.model.embeddings import RotaryPositions
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.model.gpt import Bigram
from minigpt.model.layers import ReLU2MLP, RMSNorm
from minigpt.model.objectives import NextToken
from minigpt.runs.run import Run
from minigpt.training.callbacks.denoised_lines import DenoisedLines
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.module import LanguageModel, checkpoint_metadata
from minigpt.training.optimizers import Muon
from minigpt.training.schedules import wsd
from minigpt.training.trainer import Trainer

LINES = ["The quality", "of mercy", "is not strained", "It droppeth", "as the gentle", "rain from", "heaven upon"]
OPTIONS = {"num_beams": 2, "length_penalty": 0.6, "precision": "32-true", "num_samples": 1, "max_new_tokens": 3}
OPTIONS |= {"stop": None, "format": "text", "interactive": False, "temperature": 1.0, "seed": 1}
EVALUATE = {"split": "val", "protocol": "exact", "eval_text": None, "precision": None, "num_decode_lines": 7}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that has learned seven lines, as if loaded from a checkpoint; its sample; its validation loss."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("lines")
    (folder / "text.txt").write_text("\n".join(LINES * 12) + "\n")
    data = DenoisingDataModule(
        path="text.txt", data_dir=str(folder), drop_chars=" ", lowercase=True, block_size=20, batch_size=14, seed=1
    )
    attention = {"attention": CausalSelfAttention, "encoder_attention": BidirectionalAttention}
    attention |= {"cross_attention": CrossAttention}
    components = {name: partial(kind, qk_norm=True) for name, kind in attention.items()}
    components |= {"mlp": ReLU2MLP, "norm": RMSNorm, "positions": RotaryPositions}
    sizes = {"vocab_size": data.corpus.tokenizer.vocab_size, "block_size": 20, "num_layers": 1, "num_heads": 2}
    module = LanguageModel(
        EncoderDecoder(**sizes, **components, dim=32, zero_init=True),
        optimizer=partial(Muon, lr=0.02, adamw_lr=0.01, momentum=0.95, weight_decay=0.0),
        scheduler=partial(wsd, warmup_steps=0, decay_fraction=0.5, min_lr_ratio=0.0),
        objective=NextToken(),
        seed=1,
    )
    trainer = Trainer(
        accelerator="cpu", devices=1, strategy="auto", precision="32-true", max_steps=40, accumulate_grad_batches=1,
        val_every_n_steps=40, timeout_s=60, logger=[], callbacks=[Metrics()],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    options = {"trainer": {"accumulate_grad_batches": 1}, "data": {}, "seed": 1}
    options |= dict.fromkeys(("model", "objective", "optimizer", "scheduler"))
    metadata = checkpoint_metadata(options, data) | {"precision": "32-true"}
    sample = DenoisedLines(run=Run(folder, {}), num_lines=2).sample(trainer, module).text
    loss = trainer.callback_metrics["val/loss"].item()
    return LoadedModel(folder, module.model.eval(), NextToken(), data.corpus.tokenizer, 40, metadata), sample, loss


def config(trained, **options):
    return OPTIONS | {"run": "latest", "prompt_file": None, "paths": {"data_dir": str(trained.path)}} | options


def test_an_analysis_has_the_losses_alone(trained):
    model, _, loss = trained
    analysis = analyze_model(model, str(model.path))
    assert analysis.unit == "character" and analysis.prompt == analysis.attention == analysis.predictions == []
    assert analysis.scores.total().loss == pytest.approx(loss, abs=1e-4)


def test_evaluation_repeats_the_validation_loss_and_scores_the_lines(trained):
    model, _, loss = trained
    found = evaluate_run(model, config(model, **EVALUATE))
    assert found["val_loss"] == pytest.approx(loss, abs=1e-5)
    assert (found["decoded_lines"], found["num_beams"]) == (7, 2)
    assert (found["exact_match"], found["character_accuracy"]) == (1, 1)
    assert {row["token"] for row in found["loss_by_token"]} >= {"T", f"<{model.tokenizer.eos_id}>"}
    train = evaluate_run(model, config(model, **EVALUATE | {"split": "train"}))
    assert train["tokens"] > found["tokens"] and "val_loss" not in train and train["train_loss"] < 1
    other = model.path / "other.txt"
    other.write_text("of mercy\nThe rain\n\n")
    assert evaluate_run(model, config(model, **EVALUATE | {"eval_text": str(other)}))["decoded_lines"] == 2
    other.write_text("\n\n")
    with pytest.raises(ValueError, match=r"other.txt has no line"):
        evaluate_run(model, config(model, **EVALUATE | {"eval_text": str(other)}))
    with pytest.raises(ValueError, match="protocol=sliding is for one text"):
        evaluate_run(model, config(model, **EVALUATE | {"protocol": "sliding"}))


def test_a_prompt_is_denoised_line_by_line(trained, capsys):
    model, sample, _ = trained
    generate_text(model, config(model, prompt="thequality\nOF MERCY"))
    assert capsys.readouterr().out == "The quality\nof mercy\n"
    generate_text(model, config(model, prompt="ofmercy", format="json"))
    assert json.loads(capsys.readouterr().out) == {"prompt": "ofmercy", "text": "of mercy"}
    generate_text(model, config(model, prompt="ofmercy", num_samples=2))
    first, second = capsys.readouterr().out.removeprefix("--- 1\n").split("\n--- 2\n")
    assert first == "of mercy" != second.strip()
    assert sample.splitlines()[1].strip() in LINES and sample.count("\n") == 3


def test_lines_of_a_batch_are_denoised_independently(trained):
    model, _, _ = trained
    corrupted = ["thegentle", "rain", "merc", "heavenuponthequality", "isnot"][:3]
    options = {"num_beams": 3, "length_penalty": 0.6}
    together = denoise(model.model, model.tokenizer, corrupted, **options, batch_size=2)
    assert together == [denoise(model.model, model.tokenizer, [line], **options)[0] for line in corrupted]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "\n"}, "prompt is empty.*run=latest prompt=[a-z]+"),
        ({"prompt": "50%"}, "outside the vocabulary: '%' '0' '5'"),
        ({"prompt": "o" * 21}, "a line of 21 characters is too long: the model takes 19"),
        ({"prompt": "rain", "num_samples": 3}, "num_samples=3 of a search: choose num_beams=3 or more"),
    ],
)
def test_an_unsuitable_prompt_is_refused_in_one_line(trained, options, message):
    with pytest.raises(ValueError, match=message):
        generate_text(trained[0], config(trained[0], **options))


def test_beam_search_of_a_gpt_ends_with_a_character(capsys):
    tokenizer, table = CharTokenizer("abc."), Bigram(vocab_size=4, block_size=4)
    with torch.no_grad():  # after a follows b, or else a full stop; after b a full stop
        table.table.weight.copy_(torch.tensor([[0.0] * 4, [0, -9, 1, -9], [0, -9, -9, -9], [0.0] * 4]))
    model = LoadedModel(Path(), table, NextToken(), tokenizer, 1, {})
    assert tokenizer.characters == ".abc"
    generate_text(model, config(model, prompt="a", stop=".", num_samples=2))
    assert capsys.readouterr().out == "--- 1\nab.\n--- 2\na.\n"
    generate_text(model, config(model, prompt="b", stop=None))
    assert capsys.readouterr().out.startswith("b.")


@pytest.mark.parametrize(("a", "b", "errors"), [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0)])
def test_errors_are_edit_distances(a, b, errors):
    assert score_denoising([a], [b])["character_accuracy"] == 1 - errors / len(b)


def test_scores_computed_by_hand():
    found = score_denoising(["kitten", "same"], ["sitting", "same"])
    assert found == {"decoded_lines": 2, "exact_match": 0.5, "character_accuracy": 1 - 3 / 11}
