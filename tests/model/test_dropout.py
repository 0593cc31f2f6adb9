"""Dropout: rate, mean, independence and reproducibility."""

import pytest
import torch

from minigpt.model.layers import dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(p, dtype):
    torch.manual_seed(1)
    x = torch.ones(501, 399, dtype=dtype, requires_grad=True)
    y = dropout(x, p, True)
    y.sum().backward()
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=4e-3)  # bfloat16 has 8 bits
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=0.005)
    torch.testing.assert_close(x.grad, y.detach())
    # Neighbours are independent, even those that share 64 random bits.
    both = ((y[:, 1:] == 0) & (y[:, :-1] == 0)).double().mean().item()
    assert both == pytest.approx(p * p, abs=0.005)


def test_dropout_repeats_with_the_seed_and_is_off_in_evaluation():
    x = torch.randn(7, 3)
    torch.manual_seed(2)
    first = dropout(x, 0.3, True)
    torch.manual_seed(2)
    assert torch.equal(first, dropout(x, 0.3, True))
    assert dropout(x, 0.3, False) is x and dropout(x, 0.0, True) is x
