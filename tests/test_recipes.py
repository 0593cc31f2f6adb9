"""The ensemble of benchmarks/recipes.py."""

import torch
from benchmarks.recipes import Ensemble

from minigpt.model.gpt import Bigram


def test_an_ensemble_averages_probabilities():
    models = [Bigram(vocab_size=4, block_size=8) for _ in range(3)]
    for model in models:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
    tokens = torch.tensor([[0, 1, 2, 3]])
    mean = torch.stack([model(tokens).softmax(dim=-1) for model in models]).mean(dim=0)
    torch.testing.assert_close(Ensemble(models)(tokens).exp(), mean)
