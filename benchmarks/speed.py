"""`make bench`: the speed of miniGPT and of the alternatives, measured alternately on the same machine.

    time to loss    experiment=fast_cpu to nanoGPT's CPU result, against nanoGPT's own steps
    steps           tokens per second of the same model, text and AdamW, in float32 (as nanoGPT on a CPU) and bfloat16
    overhead        the cost of Lightning, logging, W&B and the progress bar per step
    layer_metrics   the cost of the metrics of each layer per step, at their default interval
    generation      tokens per second with the key-value cache and without
    data path       tokens per second of the data loader, and its memory with a long text
    start           seconds from the command to the first step

The reference is a plain loop that does the same as nanoGPT (`benchmarks/plain.py`), and nanoGPT itself if NANOGPT_DIR
names a checkout with its Shakespeare data prepared. Ratios are taken within one session.
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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.overhead import measure_layer_metrics, measure_overhead
from benchmarks.plain import nanogpt_steps
from benchmarks.report import ROOT, compose_config, medians, train, write_results
from torch import nn

from minigpt.config.build import build
from minigpt.data.corpus import Corpus, load_or_tokenize
from minigpt.data.text_files import locate
from minigpt.devices import resolve_precision
from minigpt.inference.precision import float16_matvec, inference_precision
from minigpt.inference.sampling import generate

NANOGPT = """
    config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=1 --eval_interval=100000 --log_interval=1
    --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --lr_decay_iters=2000 --dropout=0.0
    --always_save_checkpoint=False
""".split()
NANOGPT_STEPS = 2000  # of its CPU configuration, which ends at an exact loss of 1.89
GOAL = 1.89
PRECISIONS = ("32-true", "bf16-mixed")  # nanoGPT's own on a CPU, and what miniGPT chooses where the CPU has bfloat16
TEXT = "tinyshakespeare/input.txt"
DATA_DIR = os.environ.get("MINIGPT_DATA_DIR", str(ROOT / "data"))


def tiny_shakespeare() -> Corpus:
    """Tiny Shakespeare, tokenized."""
    return load_or_tokenize(locate(TEXT, DATA_DIR), Path(DATA_DIR) / "cache", 0.1)


def nanogpt_step(checkout: Path, folder: Path, count: int) -> float:
    """Median seconds per step of nanoGPT itself."""
    command = [sys.executable, "train.py", *NANOGPT, f"--max_iters={count}", f"--out_dir={folder / 'nanogpt'}"]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return statistics.median(float(ms) / 1000 for ms in re.findall(r"iter [1-9]\d*: .*, time ([\d.]+)ms", done.stdout))


def measure_time_to_loss(folder: Path, checkout: Path | None, seeds: int) -> dict[str, Any]:
    """Training seconds of experiment=fast_cpu, and of nanoGPT's 2,000 steps in float32, alternately."""
    corpus, runs = tiny_shakespeare(), []
    for seed in range(1, seeds + 1):
        run = train(folder, "experiment=fast_cpu", f"seed={seed}")
        loop = nanogpt_steps(corpus.train, corpus.tokenizer.vocab_size)
        plain = statistics.median(itertools.islice(loop, 100)) * NANOGPT_STEPS
        names = ("val_loss", "train_s", "whole_program_s", "parameters", "steps", "precision")
        found = {name: run[name] for name in names}
        found |= {"seed": seed, "plain_s": plain, "times_plain": plain / run["train_s"]}
        if checkout is not None:
            theirs = nanogpt_step(checkout, folder, 100) * NANOGPT_STEPS
            found |= {"nanogpt_s": theirs, "times_nanogpt": theirs / run["train_s"]}
        runs.append(found)
        print(found, flush=True)
    reached = sum(run["val_loss"] <= GOAL for run in runs)
    return {"goal": GOAL, "reached": reached, "precision": runs[0]["precision"], "runs": runs} | medians(runs)


def measure_steps(folder: Path, checkout: Path | None, repeats: int) -> dict[str, Any]:
    """Tokens per second of nanoGPT's CPU model with AdamW, in each precision: whole runs, the plain loop, nanoGPT.

    `times_plain` is relative to the plain loop in the same precision. nanoGPT computes in float32 on a CPU, so
    `times_nanogpt` compares like with like in the row of 32-true alone. The loops count with their median step; runs
    with the median of windows of ten steps, each with a logged one.
    """
    corpus = tiny_shakespeare()
    runs: dict[str, list[dict[str, float]]] = {precision: [] for precision in PRECISIONS}
    for _ in range(repeats):
        theirs = None if checkout is None else 12 * 64 / nanogpt_step(checkout, folder, 150)
        for precision in PRECISIONS:
            loop = nanogpt_steps(corpus.train, corpus.tokenizer.vocab_size, bf16=precision == "bf16-mixed")
            plain = 12 * 64 / statistics.median(itertools.islice(loop, 150))
            options = ["experiment=nanogpt_cpu", f"precision={precision}"]
            options += ["trainer.max_steps=300", "trainer.val_every_n_steps=300"]
            own, compiled = (12 * 64 / median_step(train(folder, *options, *more)) for more in ([], ["compile=true"]))
            run = {"tokens_per_s": own, "compiled_tokens_per_s": compiled, "plain_tokens_per_s": plain}
            run["times_plain"] = own / plain
            if theirs is not None:
                run |= {"nanogpt_tokens_per_s": theirs, "times_nanogpt": own / theirs}
                run["compiled_times_nanogpt"] = compiled / theirs
            runs[precision].append(run)
            print(precision, run, flush=True)
    rows = [{"precision": p, "nanogpt_precision": PRECISIONS[0], "runs": r} | medians(r) for p, r in runs.items()]
    return {"rows": rows}


def median_step(run: dict[str, Any]) -> float:
    """Median seconds per step of a run that logs every ten steps, without the first ten, which warm up."""
    windows = [float(record["throughput/step_ms"]) for record in run["records"] if record["throughput/step_ms"]]
    return statistics.median(windows[1:]) / 1000


def measure_generation(model: nn.Module, new_tokens: int, repeats: int) -> dict[str, Any]:
    """Tokens per second at batch size 1: as src/generate.py samples them, and recomputing the whole context.

    The latter in nanoGPT's own precision, float32 on a CPU and bfloat16 on a GPU. The former on a CPU reads the
    matrices in float16 for each token, and the prompt in the precision that training takes there.
    """
    model.eval()
    device = next(model.parameters()).device
    runs = []
    for _ in range(repeats):
        prompt = torch.zeros(1, 1, dtype=torch.long, device=device)
        generator = torch.Generator(device).manual_seed(1)
        with inference_precision(resolve_precision("auto", device.type), model), float16_matvec(model):
            start = time.perf_counter()
            for token in generate(model, prompt, max_new_tokens=new_tokens, generator=generator):
                token.item()  # every token is printed at once, so a GPU must be waited for
            cached = new_tokens / (time.perf_counter() - start)
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            for _ in range(new_tokens):
                logits = model(prompt[:, -model.block_size :])[:, -1]
                token = torch.multinomial(torch.softmax(logits, -1), 1)
                token.item()
                prompt = torch.cat((prompt, token), dim=1)
        recomputed = new_tokens / (time.perf_counter() - start)
        runs.append({"tokens_per_s": cached, "recomputed_tokens_per_s": recomputed, "times": cached / recomputed})
        print(runs[-1], flush=True)
    return {"new_tokens": new_tokens, "runs": runs} | medians(runs)


def small_model() -> nn.Module:
    """model=small, untrained."""
    torch.manual_seed(1)
    return build(compose_config("model=small", "model.zero_init=false")["model"])(vocab_size=65)


LOAD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from minigpt.data.samplers import ShuffledSampler
from minigpt.data.corpus import load_or_tokenize
from minigpt.data.loaders import TrainLoader
def memory(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) / 1024
path = Path(sys.argv[1])
corpus = load_or_tokenize(path, path.parent / "cache", 0.1)
encoding = memory("VmHWM")
sampler = ShuffledSampler(num_tokens=len(corpus.train), block_size=64, seed=1)
options = dict(batch_size=24, micro_batches=1, rank=0, world_size=1, first_step=0, last_step=2000)
start = time.perf_counter()
for _ in TrainLoader(corpus.train, sampler, **options):
    pass
print(2000 * 24 * 64 / (time.perf_counter() - start), memory("RssAnon"), encoding)
"""


def measure_data_path(folder: Path, megabytes: list[int]) -> dict[str, Any]:
    """Tokens per second of the data loader, and its memory [MiB], for texts of several sizes.

    The memory is the anonymous memory of the process: pages of the mapped file belong to the page cache. While the text
    is tokenized no data is mapped, so that peak is the peak of the whole process.
    """
    text, runs = locate(TEXT, DATA_DIR).read_bytes(), []
    for size in megabytes:
        path = folder / f"text-{size}.txt"
        with path.open("wb") as file:
            for _ in range(size):
                file.write(text[: 1 << 20])
        command = [sys.executable, "-c", LOAD, path, ROOT / "src"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        speed, memory, encoding = map(float, done.stdout.split())
        run = {"tokens_per_s": speed, "memory_mib": memory, "encoding_peak_mib": encoding}
        runs.append({"megabytes": size} | run)
        print(runs[-1], flush=True)
        for left in [path, *folder.glob("cache/*")]:
            left.unlink()
    return {"runs": runs, "tokens_per_s": runs[0]["tokens_per_s"]}


def measure_start(folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds from the command to the end of the first step, with default options."""
    seconds = []
    for number in range(repeats):
        directory = folder / f"start-{number}"
        command = [sys.executable, ROOT / "src/train.py", "trainer.log_every_n_steps=1", f"paths.run_dir={directory}"]
        start = time.perf_counter()
        environment = os.environ | {"WANDB_MODE": "offline"}
        with subprocess.Popen([*command, f"paths.log_dir={folder}"], cwd=ROOT, stdout=-3, env=environment) as process:
            while not (directory / "metrics.csv").is_file() and process.poll() is None:
                time.sleep(0.005)
            seconds.append(time.perf_counter() - start)
            process.kill()
        print(f"start {seconds[-1]:.2f} s", flush=True)
    return {"seconds": statistics.median(seconds), "runs": seconds}


def main() -> None:
    """Measure, print the results and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", default="", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--megabytes", type=int, nargs="*", default=[1, 200])
    parser.add_argument(
        "--only", nargs="*", help="time_to_loss, steps, overhead, layer_metrics, generation, data_path, start"
    )
    arguments = parser.parse_args()
    checkout = Path(arguments.nanogpt).absolute() if arguments.nanogpt else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        benchmarks = {
            "time_to_loss": partial(measure_time_to_loss, folder, checkout, arguments.seeds),
            "steps": partial(measure_steps, folder, checkout, arguments.repeats),
            "overhead": lambda: measure_overhead(folder, tiny_shakespeare(), arguments.repeats),
            "layer_metrics": partial(measure_layer_metrics, folder, ["nano"], 5 * arguments.repeats),
            "generation": lambda: measure_generation(small_model(), 1000, arguments.repeats),
            "data_path": partial(measure_data_path, folder, arguments.megabytes),
            "start": partial(measure_start, folder, arguments.repeats),
        }
        results = {name: measure() for name, measure in benchmarks.items() if name in (arguments.only or benchmarks)}
    for name, result in results.items():
        for row in result.get("rows", [result]):
            shown = {k: f"{v:,.3f}" if isinstance(v, float) else v for k, v in row.items() if not isinstance(v, list)}
            print(f"{name:14} " + "  ".join(f"{k} {v}" for k, v in shown.items()))
    write_results("speed", results, merge=bool(arguments.only))


if __name__ == "__main__":
    main()
