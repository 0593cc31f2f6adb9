"""What the page shows of a model, as plain data. Shapes: T time, D dim, H heads, V vocabulary, L blocks."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.data.tokenizer import CharTokenizer, LineTokenizer
from minigpt.inference.load import LoadedModel
from minigpt.inference.model_analysis import attention_maps
from minigpt.inference.prompt import encode_prompt
from minigpt.inference.sampling import generate_with_logits, token_probabilities
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.model.gpt import GPT
from minigpt.model.inspection import logit_lens

MAX_SHOWN = 48  # tokens of the prompt whose insides are drawn; the model reads as many as its context has
NUM_NEIGHBORS = 6
NUM_LENS = 3  # candidates of each layer
NUM_CANDIDATES = 12  # next tokens in the diagram
ATTENTION_SCALE = 1000  # weights are sent as integers
NUM_DRAWN = 8  # numbers of a vector in a picture
DECIMALS = 4


def describe_model(loaded: LoadedModel) -> dict[str, Any]:
    """Return the sizes and the parts of a model; of a part that it lacks, the reason in `missing`."""
    model, tokenizer = loaded.model, loaded.tokenizer
    table = embedding_table(model)
    return {
        "step": loaded.step,
        "kind": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "block_size": loaded.text["block_size"],
        "unit": describe_unit(loaded),
        "vocab_size": tokenizer.vocab_size,
        "dim": None if table is None else table.shape[1],
        "is_causal": loaded.objective.can_generate,
        "num_layers": len(model.blocks) if isinstance(model, GPT) else 0,
        "example_prompt": tokenizer.known(loaded.text.get("example_prompt") or "The") or token_text(loaded, 0),
        "missing": missing_parts(loaded),
    }


def missing_parts(loaded: LoadedModel) -> dict[str, str]:
    """Return, for each part of the page that a model has not, the line that stands in its place."""
    model, kind = loaded.model, type(loaded.model).__name__
    missing = {}
    if embedding_table(model) is None:
        missing["embedding"] = f"{kind} has no embedding: it works with the token ids themselves."
    if not attention_maps(loaded, [0]):
        missing["attention"] = f"{kind} has no layers of self-attention over one text."
    if not has_lens(model):
        missing["lens"] = f"{kind} has no residual stream that its head could read after each layer."
    if (reason := why_no_prediction(loaded)) is not None:
        missing["prediction"] = reason
    return missing


def why_no_prediction(loaded: LoadedModel) -> str | None:
    """Return why a model continues no text; None if it does."""
    if not loaded.objective.can_generate:
        return "This model was trained to fill in masked tokens, not to continue a text."
    if isinstance(loaded.tokenizer, LineTokenizer):
        return "This model rewrites whole lines, and continues no text: generate.py shows them."
    return None


def inspect_prompt(loaded: LoadedModel, prompt: str) -> dict[str, Any]:
    """Return the tokens of a prompt and what is within the model for the last of them.

    Raises:
        ValueError: the prompt is empty or has characters outside the vocabulary.
    """
    ids = encode(loaded, prompt, [])[-loaded.text["block_size"] :]
    shown = ids[-MAX_SHOWN:]
    weights = [layer[:, -MAX_SHOWN:, -MAX_SHOWN:] for layer in attention_maps(loaded, ids)]
    return {
        "num_tokens": len(ids),
        "tokens": [token_text(loaded, token) for token in shown],
        "ids": shown,
        "embedding": embedding_rows(loaded, shown),
        "attention": [(layer * ATTENTION_SCALE).round().int().tolist() for layer in weights],
        "lens": lens_rows(loaded, ids) if has_lens(loaded.model) else [],
        "head_input": head_input(loaded, ids),
    }


@torch.inference_mode()
def predict_next(loaded: LoadedModel, prompt: str, tokens: list[int], **sampling: Any) -> dict[str, Any]:
    """Return the distribution of the token after a prompt, and the most likely tokens of it.

    Args:
        loaded: the model.
        prompt: a text.
        tokens: token ids that follow it.
        sampling: temperature, top_k and top_p.

    Raises:
        ValueError: as `inspect_prompt`, or the model continues no text.
    """
    ids = torch.tensor([encode_to_continue(loaded, prompt, tokens)], device=device_of(loaded.model))
    _, logits = next(generate_with_logits(loaded.model, ids, max_new_tokens=1, temperature=0))
    own, sampled = logits[0].softmax(dim=-1), token_probabilities(logits, **sampling)[0]
    return {
        "kept": int((sampled > 0).sum()),
        "candidates": [
            {
                "id": token,
                "text": token_text(loaded, token),
                "probability": round(float(sampled[token]), DECIMALS),
                "unfiltered": round(float(own[token]), DECIMALS),
            }
            for token in own.topk(min(NUM_CANDIDATES, len(own))).indices.tolist()
        ],
    }


def encode(loaded: LoadedModel, prompt: str, tokens: list[int]) -> list[int]:
    """Return the token ids of a prompt and those that follow it.

    Raises:
        ValueError: there are none, or some are not in the vocabulary.
    """
    ids = [*encode_prompt(loaded, prompt).tolist(), *tokens]
    if not ids:
        raise ValueError(f"type at least one {describe_unit(loaded)}")
    if max(ids) >= loaded.tokenizer.vocab_size:
        raise ValueError(f"tokens must be below {loaded.tokenizer.vocab_size}, the size of the vocabulary")
    return ids


def encode_to_continue(loaded: LoadedModel, prompt: str, tokens: list[int]) -> list[int]:
    """Return `encode(...)`; raises ValueError as it does, and if the model continues no text."""
    if (reason := why_no_prediction(loaded)) is not None:
        raise ValueError(reason)
    return encode(loaded, prompt, tokens)


def describe_unit(loaded: LoadedModel) -> str:
    """Return what a token of the model is."""
    return "character" if isinstance(loaded.tokenizer, CharTokenizer) else "token"


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model."""
    return next(model.parameters()).device


def token_text(loaded: LoadedModel, token: int) -> str:
    """Return the text of a token; of a special one its place in the vocabulary."""
    tokens = loaded.tokenizer.tokens
    return tokens[token].decode(errors="replace") if token < len(tokens) else f"[{token}]"


def embedding_table(model: nn.Module) -> Tensor | None:
    """Return the matrix [V, D] with a row for each token; None of a model without one."""
    tables = (module.weight for module in model.modules() if isinstance(module, nn.Embedding))
    return next(tables, None)


def embedding_rows(loaded: LoadedModel, ids: list[int]) -> dict[int, dict[str, Any]]:
    """Return the row of each token id in the embedding, and the tokens whose rows have the largest cosine with it."""
    table = embedding_table(loaded.model)
    if table is None:
        return {}
    unique = sorted(set(ids))
    known = table.detach()[: loaded.tokenizer.vocab_size].float()
    rows = known[unique]
    cosines = F.normalize(rows, dim=-1) @ F.normalize(known, dim=-1).T
    cosines[range(len(unique)), unique] = -torch.inf  # not the token itself
    nearest = cosines.topk(min(NUM_NEIGHBORS, len(known) - 1), dim=-1)
    rounded = [[round(value, 3) for value in row] for row in rows.tolist()]
    found = zip(unique, rounded, nearest.indices.tolist(), nearest.values.tolist(), strict=True)
    return {
        token: {
            "row": row,
            "neighbors": [
                {"text": token_text(loaded, other), "cosine": round(cosine, DECIMALS)}
                for other, cosine in zip(others, cosines, strict=True)
            ],
        }
        for token, row, others, cosines in found
    }


def has_lens(model: nn.Module) -> bool:
    """Whether `logit_lens` applies to a model."""
    return isinstance(model, GPT) and not isinstance(model, EncoderDecoder)


@torch.inference_mode()
def lens_rows(loaded: LoadedModel, ids: list[int]) -> list[list[list[tuple[str, float]]]]:
    """Return the most likely tokens, with their probabilities, of each layer and of each token that is shown."""
    assert isinstance(loaded.model, GPT)
    logits = logit_lens(loaded.model, torch.tensor([ids], device=device_of(loaded.model)), last=MAX_SHOWN)[:, 0]
    best = logits.float().softmax(dim=-1).topk(min(NUM_LENS, logits.shape[-1]), dim=-1)
    return [
        [
            [(token_text(loaded, token), round(value, DECIMALS)) for token, value in zip(tokens, values, strict=True)]
            for tokens, values in zip(*layer, strict=True)
        ]
        for layer in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


@torch.inference_mode()
def head_input(loaded: LoadedModel, ids: list[int]) -> list[float]:
    """Return the first numbers of the vector that the head turns into logits; none if the model has no such vector."""
    model = loaded.model
    if not isinstance(model, GPT) or isinstance(model, EncoderDecoder):
        return []
    vector = model.hidden(torch.tensor([ids], device=device_of(model)))[0, -1, :NUM_DRAWN]
    return [round(value, DECIMALS) for value in vector.tolist()]
