"""Measurements of the machine: kept, and made again where they may differ."""

import json

import pytest
import torch

from minigpt import machine
from minigpt.machine import bfloat16_speedup, float16_matvec_speedup, known_measurements, measured, speedup


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path))
    return tmp_path / machine.CACHE


def test_a_measurement_is_made_once(cache):
    assert measured("a", lambda: 2.5) == 2.5
    assert measured("a", lambda: 1 / 0) == 2.5, "kept"
    assert measured("b", lambda: 3.0) == 3.0
    assert known_measurements() == {"a": 2.5, "b": 3.0}
    assert list(json.loads(cache.read_text()).values()) == [{"a": 2.5, "b": 3.0}]


@pytest.mark.parametrize("change", ["instructions", "threads"])
def test_another_machine_is_measured_again(monkeypatch, change):
    measured("a", lambda: 1.0)
    if change == "instructions":
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    else:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    assert measured("a", lambda: 2.0) == 2.0


@pytest.mark.parametrize("text", ["", "[1]", '{"x": 3}', '{"x": {"a": "fast"}}', "[" * 100_000, "\0"])
def test_a_damaged_file_is_measured_again(cache, text):
    cache.write_text(text)
    assert measured("a", lambda: 2.0) == 2.0


def test_a_home_that_cannot_be_written_is_no_error(monkeypatch):
    monkeypatch.setattr(machine.platformdirs, "user_cache_dir", lambda *_, **__: "/dev/null/nowhere")
    assert measured("a", lambda: 2.0) == measured("a", lambda: 2.0) == 2.0


def test_the_speedup_is_the_ratio_of_the_fastest_runs(monkeypatch):
    clock = iter([0.0, 8.0, 10.0, 11.0, 20.0, 24.0, 30.0, 32.0])
    monkeypatch.setattr(machine, "REPEATS", 2)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    assert speedup(lambda: torch.ones(1), lambda: torch.zeros(1)) == 4.0


def test_real_measurements_are_plausible():
    assert 0.001 < bfloat16_speedup() < 100 and 0.001 < float16_matvec_speedup(256, 128) < 100
