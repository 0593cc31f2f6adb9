"""Runs as they are on the disk, made in milliseconds."""

import itertools
import json

import pytest
import yaml
from tests.inference.checkpoints import save_checkpoint

from minigpt.data.text_files import file_hash
from minigpt.data.tokenizer import CharTokenizer
from minigpt.model.objectives import NextToken

PLAY = "First Citizen:\nSpeak, speak <b>!\n\n" * 30


def write_run(folder, options, *, bpc, config=None, seed=1, steps=(10, 20, 30), **summary):
    """A completed run whose losses fall to `bpc`."""
    folder.mkdir(parents=True)
    figures = {"val_bpc_best": bpc, "val_loss_best": bpc * 0.7, "val_loss_best_step": steps[-1], "parameters": 1000}
    cost = {"train_s": 2.0, "wall_clock_s": 3.0, "tokens": 5000, "tokens_per_s": 2500.0, "flops_per_token": 600}
    about = {"status": "completed", "seed": seed, "overrides": [*options, f"seed={seed}"], "text": "play.txt"}
    (folder / "summary.json").write_text(json.dumps(figures | cost | about | summary))
    plain = {"model": {"dim": 32}, "data": {"tokenizer": {"_target_": "minigpt.data.tokenizer.char.CharTokenizer"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(plain | (config or {}) | {"seed": seed}))
    lines = ["step,train/loss,val/loss,val/bpc"]
    for step in steps:
        value = bpc + 1 / step - 1 / steps[-1]
        lines += [f"{step},{value * 0.69},,", f"{step},,{value * 0.7},{value}"]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    samples = [f"## Step {s}, validation loss {bpc:.4f}\n\n```\nstep {s} <i>\n```\n\n" for s in steps]
    (folder / "samples.md").write_text("".join(samples))
    return folder


def write_checkpoint(run, objective=NextToken, tokenizer=None, **text):
    """Put the checkpoint of an untrained model into a run's directory, and its text beside the run; return it."""
    play = run.parent / "play.txt"
    play.write_text(PLAY)
    (run / "checkpoints").mkdir()
    about = {"path": str(play), "sha256": file_hash(play), "example_prompt": "First Citizen:"} | text
    tokenizer = tokenizer or CharTokenizer(PLAY)
    return save_checkpoint(run / "checkpoints" / "best.ckpt", tokenizer, objective=objective, text=about)


@pytest.fixture
def sweep(tmp_path):
    """2 optimizers, 2 widths, 2 seeds: jobs 0 to 7; muon and 64 are the best, by seed 2."""
    folder = tmp_path / "sweep"
    choices = itertools.product(("adamw", "muon"), (32, 64), (1, 2))
    for job, (optimizer, dim, seed) in enumerate(choices):
        bpc = 3 - (optimizer == "muon") - dim / 100 - seed / 50 + (job == 3) / 100
        options = ["trainer.max_steps=30", f"optimizer={optimizer}", f"model.dim={dim}"]
        write_run(folder / str(job), options, bpc=bpc, seed=seed, config={"model": {"dim": dim}})
    return folder
