"""Each model of conf/ that caches: the same logits with the cache and without, beyond the block too."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import minigpt.cli  # noqa: F401  registers the resolvers that the files use
from minigpt.config.build import build
from minigpt.config.packaged import CONF
from minigpt.inference.sampling import generate_with_logits
from minigpt.model.gpt import GPT

SKIPPED = {"encoder_decoder", "attention/bidirectional"}  # which do not continue a text
FILES = {str(f.relative_to(CONF / "model").with_suffix("")) for f in (CONF / "model").rglob("*.yaml")} - SKIPPED
BLOCK, V = 8, 13
SMALL = {"num_layers": 2, "dim": 16, "num_heads": 2, "table_size": 64, "order": 3}


def small_model(choice):
    """The model of a file, or model=nano with the component of a file, at a small size."""
    group, _, name = choice.rpartition("/")
    option = f"model/{group}={name}" if group else f"model={name}"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", [option, "name=test"]), resolve=True)["model"]
    config |= {key: value for key, value in SMALL.items() if key in config} | {"block_size": BLOCK}
    model = build(config)(vocab_size=V)
    model(torch.randint(V, (4, BLOCK)))  # so that the n-gram model has counts
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("choice", sorted(FILES))
def test_cached_logits_are_those_without_a_cache(choice):
    model, prompt = small_model(choice), torch.randint(V, (2, 5))
    drawn = list(generate_with_logits(model, prompt, max_new_tokens=14))
    tokens = torch.cat((prompt, torch.stack([token for token, _ in drawn], dim=1)), dim=1)
    start = 0
    for end, (_, logits) in enumerate(drawn, start=5):
        if end - start > BLOCK:  # the block is full: its second half is read again
            start = end - BLOCK // 2
        expected = model(tokens[:, start:end])[:, -1]
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert start > 0 and (isinstance(model, GPT) or "/" not in choice)


@pytest.mark.parametrize("choice", ["nano", "rnn"])
def test_a_full_block_costs_at_most_two_positions_a_token(choice):
    """Beyond the block, a model reads fewer positions than twice the tokens, and a block for the prompt."""
    model, read = small_model(choice), []
    model.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].shape[1]))
    list(generate_with_logits(model, torch.zeros(1, BLOCK, dtype=torch.long), max_new_tokens=100))
    assert len(read) == 100 and sum(read) <= BLOCK + 2 * 100 and max(read[1:]) == BLOCK // 2
