"""`make bench-generate`: tokens per second of `model=small`: one sequence, a batch, and without a cache.

All start from one token, go beyond the block, and are drawn as `src/generate.py` draws them in `precision=auto`.
Without the cache the whole context is read for each token, in the same precision; that is measured for contexts of
some lengths, evenly spaced over those that generation goes through. Each ratio is taken within one turn.
"""

import argparse
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


def sampled(model: nn.Module, batch: int, new_tokens: int) -> float:
    """Tokens per second of a batch, as src/generate.py samples them."""
    prompt, generator = torch.zeros(batch, 1, dtype=torch.long), torch.Generator().manual_seed(1)
    begin = time.perf_counter()
    for token in generate(model, prompt, max_new_tokens=new_tokens, temperature=0.8, generator=generator):
        token.tolist()
    return batch * new_tokens / (time.perf_counter() - begin)


@torch.inference_mode()
def recomputed(model: nn.Module, block_size: int, new_tokens: int, contexts: int) -> float:
    """Tokens per second of one sequence without the cache, by the mean time of contexts of several lengths."""
    seconds = 0.0
    for i in range(contexts):
        length = min(block_size, 1 + (2 * i + 1) * new_tokens // (2 * contexts))
        tokens = torch.zeros(1, length, dtype=torch.long)
        begin = time.perf_counter()
        sample_token(model(tokens)[:, -1], temperature=0.8).item()
        seconds += time.perf_counter() - begin
    return contexts / seconds


def measure(model: nn.Module, block_size: int, new_tokens: int, repeats: int) -> dict[str, Any]:
    """All measurements in turn, their medians and ratios."""
    runs = []
    with inference_precision(resolve_precision("auto", "cpu"), model), float16_matvec(model):
        sampled(model, BATCH, 8)  # the first call takes longer
        recomputed(model, block_size, new_tokens, 1)
        for _ in range(repeats):
            one, many = sampled(model, 1, new_tokens), sampled(model, BATCH, new_tokens)
            without = recomputed(model, block_size, new_tokens, CONTEXTS)
            runs.append({"tokens_per_s": one, f"batch_{BATCH}_tokens_per_s": many, "recomputed_tokens_per_s": without})
            runs[-1] |= {f"batch_{BATCH}_times": many / one, "cache_times": one / without}
            print(runs[-1], flush=True)
    return {"model": "small", "new_tokens": new_tokens, "runs": runs} | medians(runs)


def main() -> None:
    """Measure, and write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
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
