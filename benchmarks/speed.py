"""`make bench`: how fast miniGPT is, beside what one would have instead, in turn on the same machine.

    time to loss    experiment=fast_cpu to nanoGPT's CPU result, beside nanoGPT's own steps
    steps           tokens per second of the same model, text and AdamW
    overhead        what Lightning, logging, W&B and the progress bar add to a step
    generation      tokens per second with the key-value cache and without
    data path       tokens per second of the stream, and its memory with a long text
    start           seconds from the command to the first step

The measure is a plain loop of the project's own that does what nanoGPT does (`benchmarks/plain.py`), and nanoGPT itself
where NANOGPT_DIR names a checkout whose Shakespeare data is prepared. Ratios are taken within one sitting.
"""

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning
import torch
from benchmarks.plain import bare_run, nanogpt_steps
from benchmarks.report import ROOT, composed, middle, train, write
from torch import nn

from minigpt.config.build import build
from minigpt.data.corpus import find_text, open_corpus
from minigpt.inference.precision import computing_in, reading_rows_fast, resolve_precision
from minigpt.inference.sampling import generate

NANOGPT = """
    config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=1 --eval_interval=100000 --log_interval=1
    --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --lr_decay_iters=2000 --dropout=0.0
    --always_save_checkpoint=False
""".split()
NANOGPT_STEPS = 2000  # of its CPU recipe, which ends at an exact 1.89
GOAL = 1.89
DATA_DIR = os.environ.get("MINIGPT_DATA_DIR", str(ROOT / "data"))


def text() -> Any:
    """Tiny Shakespeare's tokens."""
    return open_corpus(find_text("tinyshakespeare/input.txt", DATA_DIR), Path(DATA_DIR) / "cache", 0.1)


def nanogpt_step(checkout: Path, folder: Path, count: int) -> float:
    """Median seconds of a step of nanoGPT itself."""
    command = [sys.executable, "train.py", *NANOGPT, f"--max_iters={count}", f"--out_dir={folder / 'nanogpt'}"]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return statistics.median(float(ms) / 1000 for ms in re.findall(r"iter [1-9]\d*: .*, time ([\d.]+)ms", done.stdout))


def measure_time_to_loss(folder: Path, checkout: Path | None, seeds: int) -> dict[str, Any]:
    """Seconds of training that experiment=fast_cpu takes to its loss, and nanoGPT's 2,000 steps, in turn."""
    corpus, rows = text(), []
    for seed in range(1, seeds + 1):
        run = train(folder, "experiment=fast_cpu", f"seed={seed}")
        loop = nanogpt_steps(corpus.train, corpus.tokenizer.vocab_size)
        plain = statistics.median(itertools.islice(loop, 100)) * NANOGPT_STEPS
        row = {name: run[name] for name in ("val_loss", "train_s", "whole_program_s", "parameters", "steps")}
        row |= {"seed": seed, "plain_s": plain, "times_plain": plain / run["train_s"]}
        if checkout is not None:
            theirs = nanogpt_step(checkout, folder, 100) * NANOGPT_STEPS
            row |= {"nanogpt_s": theirs, "times_nanogpt": theirs / run["train_s"]}
        rows.append(row)
        print(row, flush=True)
    return {"goal": GOAL, "reached": sum(row["val_loss"] <= GOAL for row in rows), "runs": rows} | middle(rows)


def measure_steps(folder: Path, checkout: Path | None, repeats: int) -> dict[str, Any]:
    """Tokens per second of nanoGPT's CPU model with AdamW, everything a run does included, beside the plain loop.

    Of all of them the median step counts; of a run, the median of ten steps, so that a logged one is among them.
    """
    corpus, rows = text(), []
    for _ in range(repeats):
        loop = nanogpt_steps(corpus.train, corpus.tokenizer.vocab_size)
        plain = statistics.median(itertools.islice(loop, 150))
        options = ["experiment=nanogpt_cpu", "precision=auto", "trainer.max_steps=300", "trainer.val_every_n_steps=300"]
        row = {"tokens_per_s": 12 * 64 / median_step(train(folder, *options)), "plain_tokens_per_s": 12 * 64 / plain}
        row["compiled_tokens_per_s"] = 12 * 64 / median_step(train(folder, *options, "compile=true"))
        row["times_plain"] = row["tokens_per_s"] / row["plain_tokens_per_s"]
        if checkout is not None:
            theirs = row["nanogpt_tokens_per_s"] = 12 * 64 / nanogpt_step(checkout, folder, 150)
            row["times_nanogpt"] = row["tokens_per_s"] / theirs
            row["compiled_times_nanogpt"] = row["compiled_tokens_per_s"] / theirs
        rows.append(row)
        print(row, flush=True)
    return {"runs": rows} | middle(rows)


def median_step(run: dict[str, Any]) -> float:
    """Median seconds of a step of a run that logs each ten of them; the first ten, in which it warms up, left out."""
    windows = [float(row["throughput/step_ms"]) for row in run["rows"] if row["throughput/step_ms"]]
    return statistics.median(windows[1:]) / 1000


def measure_generation(model: nn.Module, new_tokens: int, repeats: int) -> dict[str, Any]:
    """Tokens per second at batch 1: as src/generate.py draws them, and each from the whole context again.

    The latter in nanoGPT's own precision, which is float32 on a CPU and bfloat16 on a GPU.
    """
    model.eval()
    device = next(model.parameters()).device
    rows = []
    for _ in range(repeats):
        prompt = torch.zeros(1, 1, dtype=torch.long, device=device)
        generator = torch.Generator(device).manual_seed(1)
        with computing_in(resolve_precision("auto", device.type), model), reading_rows_fast(model):
            begin = time.perf_counter()
            for token in generate(model, prompt, max_new_tokens=new_tokens, generator=generator):
                token.item()  # a reader is shown each at once, so a GPU has to wait for each
            cached = new_tokens / (time.perf_counter() - begin)
        begin = time.perf_counter()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            for _ in range(new_tokens):
                logits = model(prompt[:, -model.block_size :])[:, -1]
                token = torch.multinomial(torch.softmax(logits, -1), 1)
                token.item()
                prompt = torch.cat((prompt, token), dim=1)
        again = new_tokens / (time.perf_counter() - begin)
        rows.append({"tokens_per_s": cached, "recomputed_tokens_per_s": again, "times": cached / again})
        print(rows[-1], flush=True)
    return {"new_tokens": new_tokens, "runs": rows} | middle(rows)


def small_model() -> nn.Module:
    """model=small as it is before training."""
    torch.manual_seed(1)
    return build(composed("model=small", "model.zero_init=false")["model"])(vocab_size=65)


STREAM = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from minigpt.data.blocks import ShuffledBlocks
from minigpt.data.corpus import open_corpus
from minigpt.data.streams import TrainStream
def memory(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) / 1024
path = Path(sys.argv[1])
corpus = open_corpus(path, path.parent / "cache", 0.1)
encoding = memory("VmHWM")
blocks = ShuffledBlocks(num_tokens=len(corpus.train), block_size=64, seed=1)
how = dict(batch_size=24, micro_batches=1, rank=0, world_size=1, first_step=0, last_step=2000)
begin = time.perf_counter()
for _ in TrainStream(corpus.train, blocks, **how):
    pass
print(2000 * 24 * 64 / (time.perf_counter() - begin), memory("RssAnon"), encoding)
"""


def measure_data_path(folder: Path, megabytes: list[int]) -> dict[str, Any]:
    """Tokens per second of the stream of batches, and its own memory [MiB], for texts of several sizes.

    Memory is what the process holds itself; pages of the mapped file belong to the system and are given back. While the
    text is encoded nothing is mapped but programs, and the most that the process has taken in all is kept.
    """
    piece, rows = find_text("tinyshakespeare/input.txt", DATA_DIR).read_bytes(), []
    for size in megabytes:
        path = folder / f"text-{size}.txt"
        with path.open("wb") as file:
            for _ in range(size):
                file.write(piece[: 1 << 20])
        command = [sys.executable, "-c", STREAM, path, ROOT / "src"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        speed, memory, encoding = map(float, done.stdout.split())
        row = {"tokens_per_s": speed, "memory_mib": memory, "encoding_peak_mib": encoding}
        rows.append({"megabytes": size} | row)
        print(rows[-1], flush=True)
        for left in [path, *folder.glob("cache/*")]:
            left.unlink()
    return {"runs": rows, "tokens_per_s": rows[0]["tokens_per_s"]}


def measure_start(folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds from the command to the end of the first step, everything at its default."""
    seconds = []
    for number in range(repeats):
        directory = folder / f"start-{number}"
        command = [sys.executable, ROOT / "src/train.py", "trainer.log_every_n_steps=1", f"paths.run_dir={directory}"]
        begin = time.perf_counter()
        environment = os.environ | {"WANDB_MODE": "offline"}
        with subprocess.Popen([*command, f"paths.log_dir={folder}"], cwd=ROOT, stdout=-3, env=environment) as process:
            while not (directory / "metrics.csv").is_file() and process.poll() is None:
                time.sleep(0.005)
            seconds.append(time.perf_counter() - begin)
            process.kill()
        print(f"start {seconds[-1]:.2f} s", flush=True)
    return {"seconds": statistics.median(seconds), "runs": seconds}


class InTurn(lightning.Callback):
    """Puts the steps of a bare loop between those of a run, ten by ten: `pairs` of their milliseconds a step.

    The machine's speed changes within seconds by more than what is looked for, so neither waits for the other's end.
    """

    def __init__(self, loop: Iterator[float], count: int = 10) -> None:
        self.loop = loop
        self.count = count
        self.pairs: list[tuple[float, float]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.count == 0:
            run, bare = time.perf_counter() - self.begin, sum(itertools.islice(self.loop, self.count))
            self.pairs.append((1000 * run / self.count, 1000 * bare / self.count))
            self.begin = time.perf_counter()


def measure_overhead(folder: Path, repeats: int) -> dict[str, Any]:
    """Milliseconds of a step of the default run, all that it does included, and of a bare loop with the same model.

    Means of ten steps, so that a logged one is in each; the overhead is the median of the pairs.
    """
    corpus, options, rows = text(), ["trainer.max_steps=300", "trainer.val_every_n_steps=300"], []
    fit = lightning.Trainer.fit
    for _ in range(repeats):
        _, loop = bare_run(composed(*options), torch.device("cpu"), corpus.train, corpus.tokenizer.vocab_size)
        in_turn = InTurn(loop)

        def fit_in_turn(trainer: Any, *arguments: Any, in_turn: InTurn = in_turn, **named: Any) -> None:
            trainer.callbacks.append(in_turn)
            fit(trainer, *arguments, **named)

        with patch.object(lightning.Trainer, "fit", fit_in_turn):
            train(folder, *options, inside=True)
        pairs = in_turn.pairs[1:]  # in the first ten both warm up
        run, bare = map(statistics.median, zip(*pairs, strict=True))
        overhead = statistics.median(run / bare for run, bare in pairs) - 1
        rows.append({"step_ms": run, "bare_step_ms": bare, "overhead": overhead})
        print(rows[-1], flush=True)
    return {"runs": rows} | middle(rows)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", default="", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--megabytes", type=int, nargs="*", default=[1, 200])
    parser.add_argument("--only", nargs="*", help="time_to_loss, steps, overhead, generation, data_path, start")
    arguments = parser.parse_args()
    checkout = Path(arguments.nanogpt).absolute() if arguments.nanogpt else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measures = {
            "time_to_loss": partial(measure_time_to_loss, folder, checkout, arguments.seeds),
            "steps": partial(measure_steps, folder, checkout, arguments.repeats),
            "overhead": partial(measure_overhead, folder, arguments.repeats),
            "generation": lambda: measure_generation(small_model(), 1000, arguments.repeats),
            "data_path": partial(measure_data_path, folder, arguments.megabytes),
            "start": partial(measure_start, folder, arguments.repeats),
        }
        found = {name: measure() for name, measure in measures.items() if name in (arguments.only or measures)}
    for name, figures in found.items():
        shown = {k: round(v, 3) for k, v in figures.items() if isinstance(v, int | float)}
        print(f"{name:14} " + "  ".join(f"{k} {v:,}" for k, v in shown.items()))
    write("speed", found, merge=bool(arguments.only))


if __name__ == "__main__":
    main()
