"""`make bench-generate`: tokens per second of `model=small`: one sequence, a batch, and without a cache.

All start from one token, go beyond the block, and are drawn as `src/generate.py` draws them in `precision=auto`.
Without the cache the whole context is read for each token, in the same precision. That is measured for contexts of
some lengths, evenly spaced over those that generation goes through, and for a full one, with which the tokens beyond
the block are compared. Each ratio is taken within one turn.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from benchmarks.report import compose_config, medians, write_results
from torch import nn

from minigpt.config.build import build
from minigpt.devices import resolve_precision
from minigpt.inference.precision import float16_matvec, inference_precision
from minigpt.inference.sampling import generate, sample_token
from minigpt.startup import limit_spinning

NEW_TOKENS, BATCH, CONTEXTS = 384, 16, 12


def sampled(model: nn.Module, batch: int, new_tokens: int) -> list[float]:
    """Seconds of each step of a batch, as src/generate.py samples it."""
    prompt, generator = torch.zeros(batch, 1, dtype=torch.long), torch.Generator().manual_seed(1)
    seconds, begin = [], time.perf_counter()
    for token in generate(model, prompt, max_new_tokens=new_tokens, temperature=0.8, generator=generator):
        token.tolist()
        seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    return seconds


@torch.inference_mode()
def recomputed(model: nn.Module, lengths: list[int]) -> float:
    """Mean seconds per token of one sequence without the cache, in contexts of these lengths."""
    begin = time.perf_counter()
    for length in lengths:
        sample_token(model(torch.zeros(1, length, dtype=torch.long))[:, -1], temperature=0.8).item()
    return (time.perf_counter() - begin) / len(lengths)


def measure(model: nn.Module, block_size: int, new_tokens: int, repeats: int) -> dict[str, Any]:
    """All measurements in turn, their medians and ratios."""
    lengths = [min(block_size, 1 + (2 * i + 1) * new_tokens // (2 * CONTEXTS)) for i in range(CONTEXTS)]
    runs = []
    with inference_precision(resolve_precision("auto", "cpu"), model), float16_matvec(model):
        sampled(model, BATCH, 8)  # the first calls take longer
        recomputed(model, lengths[:1])
        for _ in range(repeats):
            one, many = sampled(model, 1, new_tokens), sampled(model, BATCH, new_tokens)
            without, without_full = recomputed(model, lengths), recomputed(model, [block_size] * 4)
            one_s, full_s = statistics.fmean(one), statistics.fmean(one[block_size:])
            run = {"tokens_per_s": 1 / one_s, f"batch_{BATCH}_tokens_per_s": BATCH / statistics.fmean(many)}
            run |= {"recomputed_tokens_per_s": 1 / without, "full_context_tokens_per_s": 1 / full_s}
            run |= {"full_context_recomputed_tokens_per_s": 1 / without_full}
            run |= {f"batch_{BATCH}_times": BATCH * one_s / statistics.fmean(many)}
            run |= {"cache_times": without / one_s, "full_context_cache_times": without_full / full_s}
            runs.append(run)
            print(run, flush=True)
    return {"model": "small", "new_tokens": new_tokens, "runs": runs} | medians(runs)


def main() -> None:
    """Measure, and write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    arguments = parser.parse_args()
    limit_spinning()
    torch.manual_seed(1)
    config = compose_config("model=small", "model.zero_init=false")["model"]
    model = build(config)(vocab_size=65).eval()
    found = measure(model, config["block_size"], arguments.new_tokens, arguments.repeats)
    write_results("generation", {"capability": torch.backends.cpu.get_cpu_capability()} | found)


if __name__ == "__main__":
    main()
