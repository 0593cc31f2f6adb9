"""Models for the tests of this directory."""

import pytest
import torch
from tests.inference.checkpoints import save_checkpoint

from minigpt.data.tokenizer import CharTokenizer
from minigpt.inference.load import load_model


@pytest.fixture
def loaded(tmp_path):
    """A model with weights that are far from their start."""
    found = load_model(save_checkpoint(tmp_path / "step_7.ckpt", CharTokenizer("\nabcde")))
    for weight in found.model.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return found
