"""Schedules against numbers worked out by hand."""

import pytest

from minigpt.training.schedules import constant, cosine, noam, wsd


@pytest.mark.parametrize(("step", "value"), [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (50, 1.0), (99, 1.0)])
def test_constant(step, value):
    assert constant(step, total_steps=100, warmup_steps=3) == pytest.approx(value)


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 1 / 11), (9, 10 / 11), (10, 1.0), (60, 0.55), (35, 0.1 + 0.9 * (1 + 0.70710678) / 2), (110, 0.1), (200, 0.1)],
)
def test_cosine(step, value):
    assert cosine(step, total_steps=110, warmup_steps=10, min_lr_ratio=0.1) == pytest.approx(value)


@pytest.mark.parametrize(
    ("step", "value"), [(0, 0.5), (1, 1.0), (60, 1.0), (61, 0.1 + 0.9 * 39 / 40), (80, 0.55), (99, 0.1225), (100, 0.1)]
)
def test_wsd(step, value):
    assert wsd(step, total_steps=100, warmup_steps=1, decay_fraction=0.4, min_lr_ratio=0.1) == pytest.approx(value)


@pytest.mark.parametrize("step", [0, 1, 2000, 3999, 4000, 100_000])
def test_noam_is_the_papers_rate(step):
    count, dim, warmup_steps = step + 1, 512, 4000
    paper = dim**-0.5 * min(count**-0.5, count * warmup_steps**-1.5)
    peak = 1 / (dim * warmup_steps) ** 0.5
    assert peak == pytest.approx(6.9877e-4, rel=1e-4)
    assert peak * noam(step, total_steps=1, warmup_steps=warmup_steps) == pytest.approx(paper)
