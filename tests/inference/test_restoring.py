"""An encoder-decoder from its lines to what the doors print: trained by the LightningModule, in a second."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from minigpt.data.restore import RestoreDataModule
from minigpt.data.tokenizer import CharTokenizer
from minigpt.inference.load import Trained
from minigpt.inference.report import evaluate_run, write
from minigpt.inference.restoring import edit_distance, restore, score_restoration
from minigpt.model.attention import BidirectionalAttention, CausalSelfAttention, CrossAttention
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.model.gpt import Bigram
from minigpt.model.mlp import ReLU2MLP
from minigpt.model.norms import RMSNorm
from minigpt.model.objectives import NextToken
from minigpt.model.positions import RotaryPositions
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.callbacks.restored_lines import RestoredLines
from minigpt.training.module import LanguageModel, describe
from minigpt.training.optimizers import Muon
from minigpt.training.schedules import wsd
from minigpt.training.trainer import Trainer

LINES = ["The quality", "of mercy", "is not strained", "It droppeth", "as the gentle", "rain from", "heaven upon"]
OPTIONS = {"beam": 2, "length_penalty": 0.6, "precision": "32-true", "num_samples": 1, "max_new_tokens": 3, "end": None}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that has learned seven lines, as a checkpoint would bring it; and its samples."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("lines")
    (folder / "text.txt").write_text("\n".join(LINES * 12) + "\n")
    data = RestoreDataModule(
        path="text.txt", data_dir=str(folder), drop=" ", fold_case=True, block_size=20, batch_size=14, seed=1
    )
    attention = {"attention": CausalSelfAttention, "encoder_attention": BidirectionalAttention}
    attention |= {"cross_attention": CrossAttention}
    parts = {name: partial(part, qk_norm=True) for name, part in attention.items()}
    parts |= {"mlp": ReLU2MLP, "norm": RMSNorm, "positions": RotaryPositions}
    sizes = {"vocab_size": data.corpus.tokenizer.vocab_size, "block_size": 20, "num_layers": 1, "num_heads": 2}
    module = LanguageModel(
        EncoderDecoder(**sizes, **parts, dim=32, zero_init=True),
        optimizer=partial(Muon, lr=0.02, adamw_lr=0.01, momentum=0.95, weight_decay=0.0),
        scheduler=partial(wsd, warmup_steps=0, decay_fraction=0.5, final=0.0),
        objective=NextToken(),
        seed=1,
    )
    trainer = Trainer(
        accelerator="cpu", devices=1, strategy="auto", precision="32-true", max_steps=40, accumulate_grad_batches=1,
        val_every_n_steps=40, timeout_s=60, logger=False, callbacks=[Metrics()],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    options = {"trainer": {"accumulate_grad_batches": 1}, "data": {}, "seed": 1}
    options |= dict.fromkeys(("model", "objective", "optimizer", "scheduler"))
    description = describe(options, data, "32-true")
    sample = RestoredLines(num_lines=2).sample(trainer, module)
    loss = trainer.callback_metrics["val/loss"].item()
    return Trained(folder, module.model.eval(), NextToken(), data.corpus.tokenizer, 40, description), sample, loss


def config(trained, **options):
    return OPTIONS | {"paths": {"data_dir": str(trained.path)}} | options


def test_evaluation_repeats_the_loss_and_counts_the_lines(trained, capsys):
    model, _, loss = trained
    options = {"text": None, "precision": None, "decode_lines": 7}
    evaluate_run(model, config(model, **options))
    found = json.loads(capsys.readouterr().out)
    assert found["val_loss"] == pytest.approx(loss, abs=1e-5)
    assert (found["decoded_lines"], found["beam"], found["exact_match"], found["character_accuracy"]) == (7, 2, 1, 1)
    other = model.path / "other.txt"
    other.write_text("of mercy\nThe rain\n\n")
    evaluate_run(model, config(model, **options | {"text": str(other)}))
    assert json.loads(capsys.readouterr().out)["decoded_lines"] == 2
    other.write_text("\n\n")
    with pytest.raises(ValueError, match=r"other.txt has no line"):
        evaluate_run(model, config(model, **options | {"text": str(other)}))


def test_a_prompt_is_restored_line_by_line(trained, capsys):
    model, sample, _ = trained
    write(model, config(model, prompt="thequality\nOF MERCY"))
    assert capsys.readouterr().out == "The quality\nof mercy\n"
    write(model, config(model, prompt="ofmercy", num_samples=2))
    first, second = capsys.readouterr().out.removeprefix("--- 1\n").split("\n--- 2\n")
    assert first == "of mercy" != second.strip()
    assert sample.splitlines()[1].strip() in LINES and sample.count("\n") == 3


def test_lines_restored_side_by_side_are_as_by_themselves(trained):
    model, _, _ = trained
    damaged = ["thegentle", "rain", "merc", "heavenuponthequality", "isnot"][:3]
    options = {"beam": 3, "length_penalty": 0.6}
    together = restore(model.model, model.tokenizer, damaged, **options, batch_size=2)
    assert together == [restore(model.model, model.tokenizer, [line], **options)[0] for line in damaged]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompt": "\n"}, "prompt is empty.*thequalityofmercy"),
        ({"prompt": "50%"}, "outside the vocabulary: '%' '0' '5'"),
        ({"prompt": "o" * 21}, "a line of 21 characters is too long: the model takes 19"),
        ({"prompt": "rain", "num_samples": 3}, "num_samples=3 of a search: choose beam=3 or more"),
    ],
)
def test_a_prompt_that_cannot_be_restored_is_one_line(trained, options, says):
    with pytest.raises(ValueError, match=says):
        write(trained[0], config(trained[0], **options))


def test_the_likeliest_continuations_of_a_gpt_end_with_a_character(capsys):
    tokenizer, table = CharTokenizer("abc."), Bigram(vocab_size=4, block_size=4)
    with torch.no_grad():  # after a comes b, or else a full stop; after b a full stop
        table.table.weight.copy_(torch.tensor([[0.0] * 4, [0, -9, 1, -9], [0, -9, -9, -9], [0.0] * 4]))
    model = Trained(Path(), table, NextToken(), tokenizer, 1, {})
    assert tokenizer.characters == ".abc"
    write(model, config(model, prompt="a", end=".", num_samples=2))
    assert capsys.readouterr().out == "--- 1\nab.\n--- 2\na.\n"
    write(model, config(model, prompt="b", end=None))
    assert capsys.readouterr().out.startswith("b.")
    with pytest.raises(ValueError, match="end='ab' must be one character"):
        write(model, config(model, prompt="a", end="ab"))


def test_scores_by_hand():
    assert [edit_distance(*pair) for pair in (("", "abc"), ("kitten", "sitting"), ("same", "same"))] == [3, 3, 0]
    found = score_restoration(["kitten", "same"], ["sitting", "same"])
    assert found == {"decoded_lines": 2, "exact_match": 0.5, "character_accuracy": 1 - 3 / 11}
