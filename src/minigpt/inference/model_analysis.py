"""What a trained model attends to, expects, and finds hard, as plain data. Shapes: B batch, T time, H heads."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from minigpt.data.text_files import iter_text_chunks
from minigpt.data.tokenizer import CharTokenizer, LineTokenizer
from minigpt.inference.eval_text import VAL, exact_batches, find_training_text, read_eval_text
from minigpt.inference.load import LoadedModel
from minigpt.inference.precision import inference_precision
from minigpt.inference.prompt import encode_prompt
from minigpt.inference.scoring import DetailedScore, detailed_scores
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.model.gpt import GPT, Block

PRECISION = "32-true"
MAX_PROMPT, MAX_PROMPT_CHARACTERS = 24, 500  # tokens; characters that are looked at for them
NUM_CANDIDATES = 6
MAX_CHARACTERS = 1 << 14
MAX_PRODUCTS = 5e10  # parameters times tokens: seconds on a slow CPU


@dataclass(frozen=True)
class Prediction:
    """What a model expects after a part of the prompt.

    Attributes:
        length: number of tokens of that part.
        actual: the token id that follows.
        probability: what the model gives it.
        rank: its place among all tokens; 1 is the most likely.
        candidates: the most likely token ids, each with its probability.
    """

    length: int
    actual: int
    probability: float
    rank: int
    candidates: list[tuple[int, float]]


@dataclass(frozen=True)
class ModelAnalysis:
    """A model as a report shows it; what does not apply to it is empty.

    Attributes:
        step: optimizer steps that the model was trained for.
        tokens: UTF-8 bytes of each token id.
        unit: character or token.
        prompt: token ids of the prompt.
        attention: weights of each layer, head, query and key.
        predictions: for each part of the prompt.
        characters: length of the text that is scored.
        scores: by position and by token; None where the text is not to be had.
        problem: why, in that case.
    """

    step: int
    tokens: list[bytes]
    unit: str
    prompt: list[int]
    attention: list[list[list[list[float]]]]
    predictions: list[Prediction]
    characters: int = 0
    scores: DetailedScore | None = None
    problem: str | None = None


def analyze_model(loaded: LoadedModel, data_dir: str) -> ModelAnalysis:
    """Analyze a model on the beginning of its text, its example prompt, and on that of its validation split.

    Args:
        loaded: the model, on a CPU.
        data_dir: directory of the texts.
    """
    tokenizer, denoises = loaded.tokenizer, isinstance(loaded.tokenizer, LineTokenizer)
    text = loaded.text.get("example_prompt", "")
    scores, characters, problem = None, 0, None
    try:
        path = find_training_text(loaded, data_dir)
        text = next(iter_text_chunks(path, stop=MAX_PROMPT_CHARACTERS), text)
        scores, characters = score_split(loaded, path)
    except ValueError as error:
        problem = str(error)
    prompt = [] if denoises else encode_beginning(loaded, text)
    return ModelAnalysis(
        step=loaded.step,
        tokens=list(tokenizer.tokens),
        unit="character" if denoises or isinstance(tokenizer, CharTokenizer) else "token",
        prompt=prompt,
        attention=[weights.tolist() for weights in attention_maps(loaded, prompt)],
        predictions=predict_prompt(loaded, prompt),
        characters=characters,
        scores=scores,
        problem=problem,
    )


def encode_beginning(loaded: LoadedModel, text: str) -> list[int]:
    """Return the token ids of the beginning of a text, as many as can be shown."""
    known = loaded.tokenizer.known(text.lstrip())
    return encode_prompt(loaded, known).tolist()[: min(MAX_PROMPT, loaded.text["block_size"])]


def score_split(loaded: LoadedModel, path: Path) -> tuple[DetailedScore, int]:
    """Return the scores on the beginning of the validation split of a text, and its length in characters.

    Raises:
        ValueError: it is too short.
    """
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    affordable = max(loaded.text["block_size"] + 1, int(MAX_PRODUCTS / max(1, parameters)))
    text = read_eval_text(loaded, path, VAL, min(MAX_CHARACTERS, affordable))
    vocab_size = loaded.tokenizer.vocab_size + loaded.objective.num_special_tokens
    batches = exact_batches(loaded, text)
    return detailed_scores(loaded.model, loaded.objective, batches, PRECISION, vocab_size=vocab_size), text.characters


@torch.inference_mode()
def attention_maps(loaded: LoadedModel, prompt: list[int]) -> list[Tensor]:
    """Return the weights [H, T, T] of each layer; none of a model without self-attention of one sequence."""
    model = loaded.model
    if not prompt or not isinstance(model, GPT) or isinstance(model, EncoderDecoder):
        return []
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    if not all(isinstance(block.attention, CausalSelfAttention) for block in blocks):
        return []
    with inference_precision(PRECISION, model):
        tokens = torch.tensor([prompt], device=next(model.parameters()).device)
        return [weights[0] for weights in model.attention_maps(tokens)]


@torch.inference_mode()
def predict_prompt(loaded: LoadedModel, prompt: list[int]) -> list[Prediction]:
    """Return what the model expects after each token of the prompt but its last; nothing if it continues no text."""
    if len(prompt) < 2 or not loaded.objective.can_generate:
        return []
    with inference_precision(PRECISION, loaded.model):
        probabilities = loaded.model(torch.tensor([prompt]))[0, :-1].float().softmax(dim=-1)
    found = []
    for length, (actual, row) in enumerate(zip(prompt[1:], probabilities, strict=True), start=1):
        top = row.topk(min(NUM_CANDIDATES, len(row)))
        candidates = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        rank = int((row > row[actual]).sum()) + 1
        found.append(Prediction(length, actual, float(row[actual]), rank, candidates))
    return found
