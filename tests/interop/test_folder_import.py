"""A folder of Hugging Face's transformers is loaded as a model of miniGPT, and nothing in it is trusted."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.interop.test_folder_export import CHARS, MODELS, TEXT, export
from tests.interop.trained_models import GPT2, LLAMA, MODERN

from minigpt.data.tokenizer import BPETokenizer, PretrainedTokenizer, WordPieceTokenizer
from minigpt.inference.load import find_model, load_model

OPTIONS = [GPT2, LLAMA, MODERN]


@pytest.mark.parametrize("name", MODELS)
def test_ours_comes_back_the_same(name, tmp_path):
    loaded, folder = export(tmp_path, MODELS[name])
    again = find_model(str(folder), str(tmp_path), "cpu")
    tokens = torch.randint(CHARS.vocab_size, (3, 16))
    assert torch.equal(again.model(tokens), loaded.model(tokens))
    assert again.model.state_dict().keys() == loaded.model.state_dict().keys()
    assert (again.step, again.text, again.tokenizer.state()) == (7, loaded.text, CHARS.state())


@pytest.mark.parametrize("options", OPTIONS, ids=["gpt2", "llama", "modern"])
def test_a_folder_that_transformers_has_saved_again_is_read(options, tmp_path):
    """Without what miniGPT had written about the model, which transformers drops."""
    loaded, folder = export(tmp_path, options)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", {"format": "pt"})
    again = load_model(folder)
    tokens = torch.randint(CHARS.vocab_size, (3, 16))
    torch.testing.assert_close(again.model(tokens), loaded.model(tokens), atol=1e-5, rtol=0)
    assert again.tokenizer.encode(TEXT).tolist() == CHARS.encode(TEXT).tolist()
    assert again.tokenizer.decode(again.tokenizer.encode(TEXT)) == TEXT and again.step == 0
    with pytest.raises(ValueError, match="outside the vocabulary: 'Ω'"):
        again.tokenizer.encode("Ω")


def gpt2_tokenizer():
    """A tokenizer.json as that of GPT-2: its split into words, byte-level BPE, a special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=270, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator([TEXT * 3], trainer)
    return library


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_by_others_is_read(kind, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 270, "bos_token_id": 0, "eos_token_id": 0}
    if kind == "gpt2":
        theirs = GPT2LMHeadModel(GPT2Config(**sizes, n_positions=16, n_layer=2, n_head=4, n_embd=32))
    else:
        own = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        theirs = LlamaForCausalLM(LlamaConfig(**sizes, **own, intermediate_size=48, max_position_embeddings=16))
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.eval().save_pretrained(tmp_path / "theirs")
    gpt2_tokenizer().save(str(tmp_path / "theirs/tokenizer.json"))
    loaded = load_model(tmp_path / "theirs")
    tokens = torch.randint(270, (3, 16))
    torch.testing.assert_close(loaded.model(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)
    text = "It's  naïve,\n<|endoftext|> 狼"
    assert loaded.tokenizer.encode(text).tolist() == gpt2_tokenizer().encode(text).ids
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "tokenizer",
    [BPETokenizer(vocab_size=257, merges=["a b"]), WordPieceTokenizer(vocab_size=4, pieces=["a", "b", " ", "ab"])],
)
def test_a_tokenizer_of_ours_is_the_same_by_its_file(tokenizer):
    again = PretrainedTokenizer(tokenizer.to_library().to_str())
    text = "ab aab  b"
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert [bytes(t) for t in again.tokens] == [bytes(t) for t in tokenizer.tokens]


def edit(file, **changes):
    """Change entries of a JSON file; those that are None are dropped."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


DAMAGES = {
    "another architecture": ({"model_type": "bloom"}, "model_type='bloom' is not supported, only gpt2, llama, mixtral"),
    "a size that is none": ({"n_embd": -1}, "n_embd must be a positive integer, not -1"),
    "another size": ({"n_embd": 64}, "the weight .* has the shape"),
    "far more layers": ({"n_layer": 2**30}, "it has no weight transformer.h.2.ln_1.weight"),
    "fewer layers": ({"n_layer": 1}, "weights belong to no part of the model"),
    "another activation": ({"activation_function": "silu"}, "activation_function='silu' is not supported"),
    "scaled attention": ({"scale_attn_weights": False}, "scale_attn_weights=False is not supported, only True"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_does_not_fit_is_refused(damage, tmp_path):
    changes, message = DAMAGES[damage]
    _, folder = export(tmp_path, GPT2)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", **changes)
    with pytest.raises(ValueError, match=message) as refused:
        load_model(folder)
    assert "\n" not in str(refused.value) and str(folder) in str(refused.value)


def test_a_folder_without_weights_or_tokenizer_is_refused(tmp_path):
    _, folder = export(tmp_path, LLAMA)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", {"format": "pt"})
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"it has no tokenizer\.json"):
        load_model(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"it has no model\.safetensors"):
        load_model(folder)


def test_a_tokenizer_that_is_lossy_or_slow_is_refused():
    library = json.loads(gpt2_tokenizer().to_str())
    for changes, message in [
        ({"normalizer": {"type": "Lowercase"}}, "it normalizes its text"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre-tokenizer Whitespace is not supported"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}}, "Split is not"),
        ({"pre_tokenizer": library["pre_tokenizer"] | {"add_prefix_space": True}}, "ByteLevel is not supported"),
    ]:
        with pytest.raises(ValueError, match=message):
            PretrainedTokenizer(json.dumps(library | changes))
    with pytest.raises(ValueError, match="add init_from=FOLDER"):
        PretrainedTokenizer().train("", [])
