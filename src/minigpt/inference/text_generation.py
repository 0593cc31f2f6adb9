"""What generate.py does: continue a prompt, or many, and print the texts or JSON."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch

from minigpt.data.tokenizer import LineTokenizer, Tokenizer
from minigpt.devices import resolve_precision
from minigpt.inference.beam_search import beam_search
from minigpt.inference.denoise_lines import denoise, denoising_model
from minigpt.inference.interactive import answer_prompts
from minigpt.inference.load import LoadedModel
from minigpt.inference.precision import float16_matvec, inference_precision
from minigpt.inference.prompt import encode_prompt, read_prompt
from minigpt.inference.sampling import CausalModel, generate_with_logits
from minigpt.inference.text_stream import TextStream, ends_with_stop, find_stop
from minigpt.model.size import check_memory, generation_bytes
from minigpt.runs.commands import generate_command

SAMPLING = ("max_new_tokens", "temperature", "repetition_penalty", "top_k", "top_p", "min_p")
Answer = Callable[[LoadedModel, dict[str, Any]], None]


def generate_text(loaded: LoadedModel, config: dict[str, Any]) -> None:
    """Print the continuations of a prompt, sampled or from beam search; of an encoder-decoder, its denoised lines.

    Raises:
        ValueError: the prompt is empty or has characters outside the vocabulary, more samples are asked for than beam
            search keeps, or the model cannot generate text.
    """
    config = config | {"stop": [config["stop"]] if isinstance(config["stop"], str) else config["stop"] or []}
    answer = choose_answer(loaded, config)
    if config["interactive"]:
        check_interactive(config)
    else:
        config |= {"prompt": read_prompt(config["prompt"], config["prompt_file"])}
        check_prompt(loaded, config)
    with generation_precision(loaded, config["precision"]):
        if config["interactive"]:
            answer_prompts(answer_in_turn(loaded, config, answer))
        else:
            answer(loaded, config)


def generate_samples(loaded: LoadedModel, config: dict[str, Any]) -> list[str]:
    """Return the prompt with its continuation, for each sample.

    Raises:
        ValueError: as `generate_text`.
    """
    config = config | {"stop": [config["stop"]] if isinstance(config["stop"], str) else config["stop"] or []}
    choose_answer(loaded, config)
    check_prompt(loaded, config)
    samples = [Sample(loaded.tokenizer, config["stop"]) for _ in range(config["num_samples"])]
    with generation_precision(loaded, config["precision"]):
        for _ in draw(loaded, samples, config):
            pass
    return [config["prompt"] + sample.stream.text for sample in samples]


@contextmanager
def generation_precision(loaded: LoadedModel, precision: str) -> Iterator[None]:
    """Compute in a precision, with float16 products where `auto` finds them faster."""
    matvec = float16_matvec(loaded.model) if precision == "auto" else nullcontext()
    device = next(loaded.model.parameters()).device.type
    with inference_precision(resolve_precision(precision, device), loaded.model), matvec:
        yield


def choose_answer(loaded: LoadedModel, config: dict[str, Any]) -> Answer:
    """Return the function that answers a prompt with this model.

    Raises:
        ValueError: the model does not generate text, or not as the options say.
    """
    if not loaded.objective.can_generate:
        name = type(loaded.objective).__name__
        raise ValueError(f"{loaded.path} was trained for {name}, not to continue a text: score it with evaluate.py")
    num_beams, num_samples = config["num_beams"], config["num_samples"]
    denoises = isinstance(loaded.tokenizer, LineTokenizer)
    if (num_beams or denoises) and num_samples > (num_beams or 1):
        raise ValueError(f"num_samples={num_samples} of a search: choose num_beams={num_samples} or more")
    if "" in config["stop"]:
        raise ValueError("stop must not be empty: give the text that ends a sample, or leave it out")
    if denoises:
        return print_denoised
    check_generation(loaded, num_beams or num_samples, config["max_new_tokens"])
    return print_beams if num_beams else print_samples


def check_interactive(config: dict[str, Any]) -> None:
    """Raise ValueError if a prompt is given although they are read one by one."""
    for name in ("prompt", "prompt_file"):
        if config[name] is not None:
            raise ValueError(f"interactive=true reads its prompts from standard input: leave {name} out")


def check_prompt(loaded: LoadedModel, config: dict[str, Any]) -> None:
    """Raise ValueError for a prompt without a character; for an encoder-decoder, line breaks are none."""
    if not config["prompt"].strip("\n" if isinstance(loaded.tokenizer, LineTokenizer) else ""):
        example = generate_command(config["run"], loaded.text.get("example_prompt"))
        raise ValueError(f"prompt is empty: give at least one character, as in {example}")


def check_generation(loaded: LoadedModel, sequences: int, max_new_tokens: int) -> None:
    """Raise ValueError if so many sequences do not fit in memory. A GPU raises an error itself; a machine kills."""
    model = loaded.model
    if sequences == 1 or next(model.parameters()).device.type != "cpu":  # a single one is printed token by token
        return
    sizes = {"block_size": cast(CausalModel, model).block_size, "vocab_size": loaded.tokenizer.vocab_size}
    needed = generation_bytes(model, sequences=sequences, max_new_tokens=max_new_tokens, **sizes)
    advice = "num_samples, num_beams or max_new_tokens"
    check_memory(needed, f"generating {sequences:,} sequences of {max_new_tokens:,} tokens", advice)


def answer_in_turn(loaded: LoadedModel, config: dict[str, Any], answer: Answer) -> Callable[[str], None]:
    """Return a function that answers one prompt after another, each with another seed; the first has `seed`."""
    seeds = iter(range(config["seed"], 2**63))

    def answer_next(prompt: str) -> None:
        answer(loaded, config | {"prompt": prompt, "seed": next(seeds)})

    return answer_next


def print_denoised(loaded: LoadedModel, config: dict[str, Any]) -> None:
    """Print the most likely lines for each corrupted line of the prompt, best first."""
    model, tokenizer = denoising_model(loaded)
    corrupted = [tokenizer.corrupt(line) for line in config["prompt"].splitlines()]
    options = {"num_beams": config["num_beams"] or 1, "length_penalty": config["length_penalty"]}
    for line, lines in zip(corrupted, denoise(model, tokenizer, corrupted, **options), strict=True):
        found = lines[: config["num_samples"]]
        print_texts(config, found, [{"prompt": line, "text": text} for text in found])


def print_beams(loaded: LoadedModel, config: dict[str, Any]) -> None:
    """Print the most likely continuations of the prompt, best first."""
    model, tokenizer, stop, prompt = cast(CausalModel, loaded.model), loaded.tokenizer, config["stop"], config["prompt"]
    ids, scores = beam_search(
        model,
        model.make_cache(),
        encode_prompt(loaded, prompt)[None],
        block_size=model.block_size,
        num_beams=config["num_beams"],
        length_penalty=config["length_penalty"],
        max_new_tokens=config["max_new_tokens"],
        ends=ends_with_stop(tokenizer, stop) if stop else None,
    )
    texts = [tokenizer.decode(each) for each in ids[0, : config["num_samples"]].tolist()]
    texts = [text[: find_stop(text, stop)] for text in texts]
    rows = [{"prompt": prompt, "text": t, "score": s} for t, s in zip(texts, scores[0].tolist(), strict=False)]
    print_texts(config, [prompt + text for text in texts], rows)


class Sample:
    """One continuation of a prompt as it is drawn.

    Attributes:
        stream: its text.
        tokens, log_probs: its token ids, and the logarithm of the probability that the model itself gave each, at
            temperature 1 and without filters.
    """

    def __init__(self, tokenizer: Tokenizer, stop: list[str]) -> None:
        self.stream = TextStream(tokenizer, stop)
        self.tokens: list[int] = []
        self.log_probs: list[float] = []

    def add(self, token: int, log_prob: float) -> str:
        """Return the text that this token adds; nothing after a stop string."""
        if self.stream.stopped:
            return ""
        self.tokens.append(token)
        self.log_probs.append(log_prob)
        return self.stream.add(token)

    def row(self, prompt: str, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return what `format=json` prints of it."""
        texts = [tokenizer.tokens[token].decode(errors="replace") for token in self.tokens]
        pairs = zip(self.tokens, texts, self.log_probs, strict=True)
        return {
            "prompt": prompt,
            "text": self.stream.text,
            "finish_reason": "stop" if self.stream.stopped else "length",
            "log_prob": sum(self.log_probs),
            "tokens": [{"id": token, "text": text, "log_prob": log_prob} for token, text, log_prob in pairs],
        }


def draw(loaded: LoadedModel, samples: list[Sample], config: dict[str, Any]) -> Iterator[str]:
    """Draw samples as one batch, until all have stopped, and yield the text of the first one as it grows."""
    prompt = encode_prompt(loaded, config["prompt"]).expand(len(samples), -1)
    options = {name: config[name] for name in SAMPLING}
    generator = torch.Generator(prompt.device).manual_seed(config["seed"])
    for tokens, logits in generate_with_logits(loaded.model, prompt, **options, generator=generator):
        log_probs = logits.log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)
        rows = zip(samples, tokens.tolist(), log_probs.tolist(), strict=True)
        texts = [sample.add(token, log_prob) for sample, token, log_prob in rows]
        yield texts[0]
        if all(sample.stream.stopped for sample in samples):
            break
    texts = [sample.stream.finish() for sample in samples]
    yield texts[0]


def print_samples(loaded: LoadedModel, config: dict[str, Any]) -> None:
    """Print the prompt and its continuation, token by token; of several samples, the first one."""
    prompt, samples = config["prompt"], [Sample(loaded.tokenizer, config["stop"]) for _ in range(config["num_samples"])]
    texts = draw(loaded, samples, config)
    if config["format"] == "json":
        for _ in texts:
            pass
        for sample in samples:
            print_json(sample.row(prompt, loaded.tokenizer))
        return
    first = next(texts)  # a prompt that the model cannot read is refused before anything is printed
    print("--- 1\n" * (len(samples) > 1) + prompt + first, end="", flush=True)
    for text in texts:
        print(text, end="", flush=True)
    print()
    for number, sample in enumerate(samples[1:], start=2):
        print(f"--- {number}\n{prompt}{sample.stream.text}")


def print_texts(config: dict[str, Any], texts: list[str], rows: list[dict[str, Any]]) -> None:
    """Print one text as it is, several with numbers; with `format=json`, the rows."""
    if config["format"] == "json":
        for row in rows:
            print_json(row)
        return
    for number, text in enumerate(texts, start=1):
        print(text if len(texts) == 1 else f"--- {number}\n{text}")


def print_json(row: dict[str, Any]) -> None:
    """Print one line of JSON. Infinity, which JSON lacks, is the score of a beam that does not exist: null."""
    print(json.dumps({k: None if v == -float("inf") else v for k, v in row.items()}, ensure_ascii=False), flush=True)
