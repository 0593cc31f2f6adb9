"""A folder for Hugging Face's transformers holds the same model and the same tokenizer."""

import json

import pytest
import torch
from tests.interop.trained_models import CAUSAL, GPT2, LLAMA, MODERN, MOE, RMS, node, save_model

from minigpt.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, LineTokenizer, WordPieceTokenizer
from minigpt.inference.export_formats import export_model
from minigpt.inference.load import load_model

TEXT = "To be, or not to be:\n\tthat is  the question.\n\n"
CHARS = CharTokenizer(TEXT + "AZé")
BIASED = {"attention": CAUSAL | {"bias": True}, "mlp": node("layers.MLP", bias=True, hidden_dim=48)}
MODELS = {
    "GPT2LMHeadModel": GPT2,
    "GPT2LMHeadModel with biases": GPT2 | BIASED | {"norm": node("layers.LayerNorm", bias=True, eps=1e-3)},
    "GPT2LMHeadModel with ReLU^2, untied": GPT2 | {"mlp": node("layers.ReLU2MLP"), "tie_head": False},
    "GPT2LMHeadModel with tanh": GPT2 | {"mlp": node("layers.TanhGELUMLP")},
    "LlamaForCausalLM": LLAMA,
    "LlamaForCausalLM tied, with biases": LLAMA
    | {"tie_head": True, "attention": CAUSAL | {"bias": True}, "mlp": node("layers.SwiGLU", bias=True)},
    "LlamaForCausalLM without weights of norms, another base": LLAMA
    | {"norm": RMS | {"eps": 1e-3}, "positions": node("embeddings.RotaryPositions", base=500.0)},
    "MixtralForCausalLM": LLAMA | {"mlp": MOE},
    "MiniGPTForCausalLM": MODERN,
    "MiniGPTForCausalLM tied": MODERN | {"tie_head": True, "embedding": node("embeddings.ScaledEmbedding")},
    "MiniGPTForCausalLM with n-grams": MODERN
    | {"embedding": node("embedding_variants.NgramEmbedding", table_sizes=[50], table_dims=[8])},
    "MiniGPTForCausalLM with ALiBi": LLAMA | {"positions": node("embeddings.AlibiPositions")},
    "MiniGPTForCausalLM of counts": node("ngram.Ngram", block_size=16, order=3, table_size=64),
}


@pytest.fixture(autouse=True, scope="module")
def modules_folder(tmp_path_factory):
    """transformers keeps its copies of a folder's code elsewhere than in the user's cache."""
    folder = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder))
        patch.syspath_prepend(folder)
        yield


def export(tmp_path, options, tokenizer=CHARS):
    """The model and the folder that it is exported to."""
    loaded = load_model(save_model(tmp_path / "step_7.ckpt", options, tokenizer))
    export_model(loaded, str(tmp_path / "tiny-v1.0"))
    return loaded, tmp_path / "tiny-v1.0"


def open_folder(folder):
    """The model and the tokenizer as transformers loads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    assert not any(info.values()), info
    return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=True)


@pytest.mark.parametrize("name", MODELS)
def test_transformers_computes_the_same_logits(name, tmp_path):
    loaded, folder = export(tmp_path, MODELS[name])
    theirs, _ = open_folder(folder)
    assert type(theirs).__name__ == name.split()[0]
    tokens = torch.randint(loaded.model.vocab_size, (3, 16))
    with torch.no_grad():
        expected, found = loaded.model(tokens), theirs(tokens).logits
    assert expected.std() > 0.3 or "counts" in name
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


TOKENIZERS = [
    CHARS,
    ByteTokenizer(),
    BPETokenizer(vocab_size=270).train("", [TEXT * 3]),
    WordPieceTokenizer(vocab_size=30).train("".join(set(TEXT)), [TEXT * 3]),
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: t.kind)
@pytest.mark.parametrize("options", [GPT2, LLAMA, MODERN], ids=["gpt2", "llama", "modern"])
def test_text_and_tokens_are_the_same(options, tokenizer, tmp_path):
    loaded, folder = export(tmp_path, options, tokenizer)
    model, theirs = open_folder(folder)
    texts = [TEXT, "  be", "\n", "\n\n\n", "not  to\t be "] + ["naïve — 狼 🐺"] * (tokenizer.characters is None)
    for text in texts:
        assert theirs(text)["input_ids"] == tokenizer.encode(text).tolist()
        assert theirs.decode(tokenizer.encode(text)) == text
    assert len(theirs) == tokenizer.vocab_size == model.config.vocab_size
    inputs = theirs("be,", return_tensors="pt")
    written = model.generate(**inputs, do_sample=False)
    assert written.shape[1] == 16, "the whole context"
    assert written[0].tolist() == greedy(loaded.model, inputs["input_ids"][0].tolist())


def greedy(model, tokens):
    """The most likely continuation up to the end of the block, without a cache."""
    while len(tokens) < model.block_size:
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens


@pytest.mark.parametrize("tokenizer", [t for t in TOKENIZERS if t.characters], ids=lambda t: t.kind)
def test_a_character_outside_the_vocabulary_is_refused_there_too(tokenizer):
    with pytest.raises(Exception, match="UNK"):
        tokenizer.to_library().encode("Ω")


def test_the_card_and_the_files_say_what_the_model_is(tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    summary = {"steps": 9, "val_loss": 2.0, "val_bpc": 2.9, "val_loss_best": 1.25, "val_bpc_best": 1.8}
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"val_loss_best_step": 7}))
    loaded = load_model(save_model(tmp_path / "checkpoints" / "step_7.ckpt", MODERN, CHARS))
    export_model(loaded, str(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| validation loss | 1.2500 nats per token |" in card and "| the same | 1.8000 bits per character |" in card
    assert "play.txt" in card and "| optimizer steps | 7 |" in card and str(tmp_path) not in card
    assert "trust_remote_code=True" in card and "trust_remote_code=True" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"README.md", "config.json", "generation_config.json", "gpt.py", "tokenizer.json"} <= files
    assert "encoder_decoder.py" not in files, "only what the model needs"
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["max_length"] == 16
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"val_loss_best_step": 5}))
    export_model(loaded, str(tmp_path / "later"))
    assert "nats" not in (tmp_path / "later" / "README.md").read_text(), "the loss of another step"


def test_a_fine_tuning_by_transformers_is_saved_and_loaded_again(tmp_path):
    from transformers import AutoModelForCausalLM

    _, folder = export(tmp_path, MODERN)
    model, _ = open_folder(folder)
    tokens = torch.randint(CHARS.vocab_size, (2, 16))
    loss = model(tokens, labels=tokens).loss
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    with pytest.raises(ValueError, match="pad on the right"):
        model(tokens, attention_mask=(tokens > 99).long())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("model.pt", r"output=.*model\.pt must end in \.safetensors, or be a folder for transformers, without \.pt"),
        ("model.gguf", r"without \.gguf"),
        ("taken", "taken exists already: name another one with output="),
        ("nowhere/model", "there is no folder .*nowhere"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(output, message, tmp_path):
    (tmp_path / "taken").mkdir()
    loaded = load_model(save_model(tmp_path / "step_7.ckpt", LLAMA, CHARS))
    with pytest.raises(ValueError, match=message):
        export_model(loaded, str(tmp_path / output))
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "step_7.ckpt"}


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    loaded = load_model(save_model(tmp_path / "step_7.ckpt", LLAMA, CHARS))

    def fail(*args):
        raise OSError("no space")

    monkeypatch.setattr("minigpt.inference.hugging_face_export.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        export_model(loaded, str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["step_7.ckpt"]


def test_what_does_not_continue_a_text_is_refused(tmp_path):
    encoder = GPT2 | {"attention": node("attention.BidirectionalAttention")}
    path = save_model(tmp_path / "step_7.ckpt", encoder, CHARS, "MaskedTokens")
    with pytest.raises(ValueError, match=r"continues a text, not one of MaskedTokens: use output=.*out\.safetensors"):
        export_model(load_model(path), str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"lines tokenizer cannot be written as a tokenizer\.json"):
        LineTokenizer("abc").to_library()
