"""`make bench-gpu`, as far as it can be tested without a GPU."""

import sys

import pytest
import torch
from benchmarks import gpu, gpu_bench, gpu_nanogpt


def test_every_benchmark_runs_end_to_end(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--quick"])
    gpu.main()
    shown = capsys.readouterr().out
    assert all(f"│ {name} " in shown for name in gpu.BENCHMARKS) and "written" not in shown


def test_a_missing_gpu_is_a_one_line_error(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    shown = capsys.readouterr()
    assert not shown.out and len(shown.err.splitlines()) == 1 and "CUDA" in shown.err


def test_compiling_does_not_count_as_training_time():
    windows = {"10": "500", "20": "100", "30": "120", "40": "110"}
    records = [{"step": step, "throughput/step_ms": ms} for step, ms in windows.items()]
    found = gpu_bench.training_speed([*records, {"step": "40", "throughput/step_ms": ""}])
    assert found["step_ms"] == 110 and found["warmup_s"] == pytest.approx(3.9)
    assert found["seconds"] == pytest.approx({0: 0, 10: 1.1, 20: 2.1, 30: 3.3, 40: 4.4})


def test_nanogpts_evaluations_do_not_count_as_training_time():
    output = [(0.0, "number of parameters: 10.65M"), (5.0, "step 0: train loss 4.2874, val loss 4.2823")]
    output += [(30.0 + n / 10, f"iter {n}: loss 2.5, time 100.00ms, mfu 3.1%") for n in range(0, 250, 10)]
    output += [(70.0, "step 250: train loss 1.96, val loss 2.07"), (75.0, "saving checkpoint to out")]
    output += [(80.0 + n / 20, f"iter {n}: loss 2.0, time 50.00ms, mfu 6.2%") for n in range(250, 500, 10)]
    output += [(120.0, "step 500: train loss 1.53, val loss 1.73")]
    seconds = gpu_nanogpt.nanogpt_seconds(output)
    assert seconds == pytest.approx({0: 0, 250: 25, 500: 37.5})
    found = gpu_bench.time_to_goal({250: 2.0, 500: 1.7, 750: 1.8}, seconds, 1.75)
    assert found == {"reached": True, "steps": 500, "train_s": pytest.approx(37.5), "val_loss": 1.7}
    assert not gpu_bench.time_to_goal({250: 2.0, 500: 1.7}, seconds, 1.6)["reached"]
