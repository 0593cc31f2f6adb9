"""Models without a part say so, and show what they have."""

from functools import partial
from pathlib import Path

import pytest
import torch
from tests.inference.checkpoints import COMPONENTS, SIZES

from minigpt.data.tokenizer import CharTokenizer, LineTokenizer
from minigpt.inference.load import LoadedModel
from minigpt.model.attention import BidirectionalAttention, CrossAttention
from minigpt.model.bag_of_words import BagOfWords
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.model.gpt import GPT, Bigram
from minigpt.model.multi_token import MultiTokenGPT
from minigpt.model.ngram import Ngram
from minigpt.model.objectives import MaskedTokens, MultiToken, NextToken
from minigpt.model.rnn import RNN
from minigpt.playground.model_views import describe_model, inspect_prompt, predict_next

PARTS = {name: partial(part) for name, part in COMPONENTS.items()}
ENCODER = PARTS | {"attention": partial(BidirectionalAttention)}
MODELS = {
    "gpt": (partial(GPT, **SIZES, **PARTS), NextToken, set()),
    "multi_token": (partial(MultiTokenGPT, **SIZES | {"num_layers": 2}, **PARTS, num_tokens=2), MultiToken, set()),
    "bigram": (partial(Bigram, block_size=8), NextToken, {"attention", "lens"}),
    "ngram": (partial(Ngram, block_size=8, order=2, table_size=64), NextToken, {"attention", "lens", "embedding"}),
    "rnn": (partial(RNN, block_size=8, num_layers=1, dim=8, cell="lstm"), NextToken, {"attention", "lens"}),
    "bag_of_words": (partial(BagOfWords, block_size=8, dim=8), NextToken, {"attention", "lens"}),
    "encoder": (partial(GPT, **SIZES, **ENCODER), MaskedTokens, {"prediction"}),
}


def loaded_model(name):
    """An untrained model."""
    torch.manual_seed(0)
    build, objective, _ = MODELS[name]
    tokenizer = CharTokenizer("abc \n")
    model = build(vocab_size=tokenizer.vocab_size + objective.num_special_tokens).eval()
    return LoadedModel(Path("x.ckpt"), model, objective(), tokenizer, 0, {"text": {"block_size": 8}})


@pytest.mark.parametrize("name", MODELS)
def test_a_model_shows_the_parts_that_it_has(name):
    loaded, missing = loaded_model(name), MODELS[name][2]
    about, inside = describe_model(loaded), inspect_prompt(loaded, "ab c")
    assert set(about["missing"]) == missing and inside["tokens"] == ["a", "b", " ", "c"]
    assert bool(inside["embedding"]) == ("embedding" not in missing)
    assert bool(inside["attention"]) == ("attention" not in missing)
    assert bool(inside["lens"]) == bool(inside["head_input"]) == ("lens" not in missing)
    if "prediction" in missing:
        with pytest.raises(ValueError, match="masked tokens"):
            predict_next(loaded, "ab", [], temperature=1.0)
    else:
        found = predict_next(loaded, "ab", [], temperature=1.0)
        assert sum(c["probability"] for c in found["candidates"]) == pytest.approx(1, abs=1e-3)


def test_an_encoder_decoder_shows_its_embedding():
    tokenizer = LineTokenizer("abc \n")
    options = {"encoder_attention": partial(BidirectionalAttention), "cross_attention": partial(CrossAttention)}
    model = EncoderDecoder(vocab_size=tokenizer.vocab_size, **SIZES, **PARTS, **options).eval()
    loaded = LoadedModel(Path("x.ckpt"), model, NextToken(), tokenizer, 0, {"text": {"block_size": 8}})
    assert set(describe_model(loaded)["missing"]) == {"attention", "lens", "prediction"}
    inside = inspect_prompt(loaded, "ab")
    assert inside["embedding"] and inside["attention"] == inside["lens"] == []
