"""`init_from`: a run that starts from the weights and the tokenizer of another model."""

import json
import shutil

import pytest
import torch
import yaml
from tests.interop.test_folder_export import export
from tests.interop.trained_models import GPT2, LLAMA, MODERN, node, save_model

from minigpt.data.synthetic import write_play
from minigpt.data.tokenizer import BPETokenizer, CharTokenizer
from minigpt.inference.export_formats import export_model
from minigpt.inference.load import load_model
from minigpt.model.assembly import assemble
from minigpt.model.components import COMPONENTS
from minigpt.runs.checkpoint_io import load_checkpoint

QUICK = ["debug=fast", "precision=32-true", "trainer.max_steps=4", "trainer.val_every_n_steps=2", "optimizer=adamw"]
QUICK += ["callbacks.checkpoints.every_n_steps=2", "scheduler=constant", "optimizer.lr=1e-9"]


@pytest.fixture
def tokenizer(tmp_path):
    """Every character of the synthetic play of `debug=fast`, and one more."""
    return CharTokenizer(write_play(tmp_path / "data/synthetic/20000-1.txt", 20000, 1).read_text() + "Ω")


def only_run(folder):
    (run,) = (folder / "logs/debug").iterdir()
    return run


@pytest.mark.parametrize("options", [GPT2, MODERN], ids=["gpt2", "modern"])
def test_a_run_starts_from_the_weights_of_a_folder_and_is_resumed_without_it(options, tokenizer, cli, tmp_path):
    loaded, folder = export(tmp_path, options, tokenizer)
    done = cli("train.py", *QUICK, f"init_from={folder}", "model.dropout=0.1")
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["init_from"] == str(folder) and config["model"] == options | {"dropout": 0.1}
    assert config["data"]["block_size"] == 16
    content = load_checkpoint(run / "checkpoints/last.ckpt")
    assert content["minigpt"]["tokenizer"] == tokenizer.state()
    for name, weight in loaded.model.state_dict().items():
        torch.testing.assert_close(content["state_dict"][f"model.{name}"], weight, atol=1e-6, rtol=0)
    shutil.rmtree(folder)
    resumed = cli("train.py", f"resume={run}", "trainer.max_steps=6")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run / "summary.json").read_text())["steps"] == 6
    refused = cli("train.py", f"resume={run}", "trainer.max_steps=8", "init_from=other")
    assert refused.returncode == 2 and "init_from: " in refused.stderr


def test_a_fine_tuned_bpe_model_lowers_its_loss(cli, tmp_path):
    text = write_play(tmp_path / "data/synthetic/20000-1.txt", 20000, 1).read_text()
    tokenizer = BPETokenizer(vocab_size=280).train("", [text[:500]])  # another text: training would find other merges
    path = save_model(tmp_path / "step_7.ckpt", LLAMA, tokenizer, std=0.02)
    done = cli("train.py", *QUICK[:-1], "optimizer.lr=0.01", f"init_from={path}")
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    rows = [float(line) for line in column(run / "metrics.csv", "val/loss")]
    assert len(rows) == 2 and rows[1] < rows[0] < 5.7
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["tokenizer"] == {
        "_target_": "minigpt.data.tokenizer.bpe.BPETokenizer", "_partial_": True, "vocab_size": 280
    }  # fmt: skip
    assert load_checkpoint(run / "checkpoints/last.ckpt")["minigpt"]["tokenizer"] == tokenizer.state()


def column(file, name):
    """The values of a column of a CSV file."""
    header, *lines = [line.split(",") for line in file.read_text().splitlines()]
    return [line[header.index(name)] for line in lines if line[header.index(name)]]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["model=small"], "brings its own model and tokenizer: leave model=small out"),
        (["model.dim=64"], "leave model.dim=64 out"),
        (["data/tokenizer=bpe"], "leave data/tokenizer=bpe out"),
        (["objective=masked"], "does not fit model or objective"),
        (["init_from=nowhere"], "no run at nowhere"),
    ],
)
def test_what_does_not_go_together_is_one_line(typed, message, tokenizer, cli, tmp_path):
    path = save_model(tmp_path / "step_7.ckpt", LLAMA, tokenizer)
    done = cli("train.py", *QUICK, f"init_from={path}", *typed)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not list((tmp_path / "logs").rglob("config.yaml"))


def test_a_text_with_other_characters_is_one_line(cli, tmp_path):
    path = save_model(tmp_path / "step_7.ckpt", LLAMA, CharTokenizer("abc \n"))
    done = cli("train.py", *QUICK, f"init_from={path}")
    assert done.returncode == 2 and "outside the vocabulary" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_folder_names_no_classes_of_its_own(tokenizer, cli, tmp_path):
    _, folder = export(tmp_path, MODERN, tokenizer)
    config = json.loads((folder / "config.json").read_text())
    for changes, message in [
        ({"_target_": "os.system"}, "names 'os.system', which is not a component"),
        ({"dim": "${oc.env:HOME}"}, "dim"),
    ]:
        config["components"] = MODERN | changes
        from safetensors.torch import load_file, save_file

        save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config))
        done = cli("train.py", *QUICK, f"init_from={folder}")
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_lora_trains_its_own_weights_alone_and_is_merged_on_export(tokenizer, cli, tmp_path):
    loaded = load_model(save_model(tmp_path / "step_7.ckpt", GPT2, tokenizer, std=0.05))
    export_model(loaded, str(tmp_path / "folder"))
    typed = [f"init_from={tmp_path / 'folder'}", "model/adapter=lora", "model.adapter.rank=4", "optimizer.lr=0.02"]
    done = cli("train.py", *QUICK[:-1], *typed)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    losses = [float(value) for value in column(run / "metrics.csv", "val/loss")]
    assert losses[1] < losses[0], "it learns"
    content = load_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(content[f"model.{name}"], weight), f"{name} is frozen"
    assert json.loads((run / "summary.json").read_text())["parameters"] == 2 * 4 * (32 + 96 + 32 + 32 + 2 * (32 + 128))
    tuned = load_model(run / "checkpoints/last.ckpt")
    raw = assemble(GPT2 | {"adapter": node("lora.LoRA", rank=4)}, COMPONENTS.__getitem__)(
        vocab_size=tokenizer.vocab_size
    )
    raw.load_state_dict({name.removeprefix("model."): weight for name, weight in content.items()})
    tokens = torch.randint(tokenizer.vocab_size, (2, 16))
    torch.testing.assert_close(tuned.model(tokens), raw(tokens), atol=1e-5, rtol=0)
    assert (tuned.model(tokens) - loaded.model(tokens)).abs().max() > 1e-3
    export_model(tuned, str(tmp_path / "tuned"))
    from transformers import GPT2LMHeadModel

    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "tuned")
    torch.testing.assert_close(theirs(tokens).logits, raw(tokens), atol=1e-4, rtol=0)
    resumed = cli("train.py", f"resume={run}", "trainer.max_steps=6")
    assert resumed.returncode == 0, resumed.stderr


def test_lora_without_a_trained_model_is_one_line(cli):
    done = cli("train.py", *QUICK, "model/adapter=lora")
    assert done.returncode == 2 and "adapts a trained model: add init_from=" in done.stderr
