"""The benchmarks of speed: what they make of the times and losses that they read."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks import generation, speed, time_to_loss

from minigpt.data.tokenizer import CharTokenizer
from minigpt.model.gpt import Bigram


def test_steps_are_measured_in_both_precisions_each_beside_its_like(monkeypatch):
    """A step of nanoGPT takes 40 ms; of the plain loop 40 and 20; of ours 38 and 25, compiled a tenth less."""

    def train(folder, *options):
        step_ms = {"precision=32-true": 38.0, "precision=bf16-mixed": 25.0}[options[1]]
        step_ms *= 0.9 if "compile=true" in options else 1
        return {"records": [{"throughput/step_ms": str(ms)} for ms in (1000.0, step_ms, step_ms)]}

    plain = {False: 0.040, True: 0.020}
    monkeypatch.setattr(speed, "train", train)
    monkeypatch.setattr(speed, "nanogpt_step", lambda *_: 0.040)
    monkeypatch.setattr(speed, "nanogpt_steps", lambda *_, bf16: itertools.repeat(plain[bf16]))
    monkeypatch.setattr(speed, "tiny_shakespeare", lambda: SimpleNamespace(train=None, tokenizer=CharTokenizer(["a"])))
    float32, bfloat16 = speed.measure_steps(Path(), Path("nanoGPT"), 2)["rows"]
    assert (float32["precision"], bfloat16["precision"]) == ("32-true", "bf16-mixed")
    assert float32["nanogpt_precision"] == bfloat16["nanogpt_precision"] == "32-true"
    assert float32["times_nanogpt"] == float32["times_plain"] == pytest.approx(40 / 38)
    assert bfloat16["times_nanogpt"] == pytest.approx(40 / 25)
    assert bfloat16["times_plain"] == pytest.approx(20 / 25), "the plain loop computes in bfloat16 too"
    assert bfloat16["compiled_times_nanogpt"] == pytest.approx(40 / 22.5)


def test_a_curve_is_over_seconds_of_training_alone():
    records = [
        {"step": "10", "throughput/step_ms": "100", "train/loss": "3", "val/loss": ""},
        {"step": "10", "throughput/step_ms": "", "train/loss": "", "val/loss": "2.9"},
        {"step": "15", "throughput/step_ms": "40", "train/loss": "2", "val/loss": ""},
    ]
    curve = time_to_loss.loss_curve(records)
    assert [point["train_s"] for point in curve] == pytest.approx([1.0, 1.0, 1.2])
    assert [(point["train/loss"], point["val/loss"]) for point in curve] == [(3, None), (None, 2.9), (2, None)]


def test_nanogpt_s_output_is_read_without_the_time_of_its_evaluations():
    lines = [f"iter {n}: loss 2.5000, time {9000 if n % 250 == 0 else 40}.00ms, mfu -100.00%" for n in range(501)]
    for step, loss in ((500, "1.9000"), (250, "2.1000"), (0, "4.2000")):
        lines.insert(step, f"step {step}: train loss 1.0000, val loss {loss}")
    read = time_to_loss.read_nanogpt("\n".join(lines))
    assert read["steps"] == 500 and read["step_ms"] == 40 and read["val_loss_estimate"] == 1.9
    assert read["train_s"] == pytest.approx(501 * 0.040)
    assert [(point["step"], point["val/loss"]) for point in read["curve"]] == [(0, 4.2), (250, 2.1), (500, 1.9)]
    assert [point["train_s"] for point in read["curve"]] == pytest.approx([0, 10, 20])


def test_generation_is_measured_in_turn_and_by_what_it_reads(monkeypatch):
    """A token of one sequence takes 4 ms, of a batch 8 ms; without the cache each position that is read takes 1 ms."""
    clock = [0.0]

    def read(tokens, cache=None):
        clock[0] += 0.001 * tokens.shape[1] if cache is None else 0.004 if len(tokens) == 1 else 0.008
        if cache is not None:
            cache.advance(tokens)
        return torch.zeros(*tokens.shape, 5)

    model = Bigram(vocab_size=5, block_size=16)
    monkeypatch.setattr(model, "forward", read)
    monkeypatch.setattr(generation, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    found = generation.measure(model, 16, 32, 3)
    assert found["tokens_per_s"] == pytest.approx(250) and found["batch_16_tokens_per_s"] == pytest.approx(2000)
    assert found["batch_16_times"] == pytest.approx(8) and len(found["runs"]) == 3
    mean = sum(min(16, 1 + (2 * i + 1) * 32 // 24) for i in range(12)) / 12  # positions read
    assert found["recomputed_tokens_per_s"] == pytest.approx(1000 / mean)
    assert found["cache_times"] == pytest.approx(0.25 * mean) and found["full_context_cache_times"] == pytest.approx(4)
