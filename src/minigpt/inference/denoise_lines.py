"""Denoise corrupted lines with an encoder-decoder, and score the result."""

from functools import partial
from typing import Any

import torch

from minigpt.data.tokenizer import LineTokenizer
from minigpt.inference.beam_search import beam_search
from minigpt.inference.load import LoadedModel
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.model.size import check_memory, generation_bytes


@torch.inference_mode()
def denoise(
    model: EncoderDecoder,
    tokenizer: LineTokenizer,
    corrupted: list[str],
    *,
    num_beams: int,
    length_penalty: float,
    batch_size: int = 64,
) -> list[list[str]]:
    """Return the `num_beams` most likely lines for each corrupted line, best first.

    Raises:
        ValueError: a line is too long or has characters outside the vocabulary, or so many beams do not fit in memory.
    """
    device = next(model.parameters()).device
    sizes = {"max_new_tokens": model.block_size, "block_size": model.block_size, "vocab_size": tokenizer.vocab_size}
    needed = generation_bytes(model, sequences=min(len(corrupted), batch_size) * num_beams, **sizes)
    check_memory(needed, f"a search with {num_beams:,} beams for each line", "num_beams")
    sources = torch.from_numpy(tokenizer.encode_lines(corrupted, model.block_size).astype("int64"))
    sizes = (sources != tokenizer.pad_id).sum(dim=1)
    found: dict[int, list[str]] = {}
    for indices in sizes.argsort(stable=True).split(batch_size):  # lines of similar length end at about the same step
        source = sources[indices, : sizes[indices].max()].to(device)
        encoded = {name: each.repeat_interleave(num_beams, dim=0) for name, each in model.encode(source).items()}
        lines, _ = beam_search(
            partial(model.decode, **encoded),
            model.make_cache(),
            torch.full((len(indices), 1), tokenizer.bos_id, device=device),
            block_size=model.block_size,
            num_beams=num_beams,
            length_penalty=length_penalty,
            max_new_tokens=model.block_size,
            stop_token=tokenizer.eos_id,
        )
        texts = [[tokenizer.decode(ids) for ids in hypotheses] for hypotheses in lines.tolist()]
        found |= zip(indices.tolist(), texts, strict=True)
    return [found[index] for index in range(len(corrupted))]


def denoise_eval_lines(loaded: LoadedModel, lines: list[str], config: dict[str, Any]) -> dict[str, Any]:
    """Denoise the first of the lines of a text, and return their scores, see `score_denoising`."""
    model, tokenizer = denoising_model(loaded)
    lines = lines[: config["num_decode_lines"]]
    corrupted = [tokenizer.corrupt(line) for line in lines]
    num_beams = config["num_beams"]
    found = denoise(model, tokenizer, corrupted, num_beams=num_beams, length_penalty=config["length_penalty"])
    return {"num_beams": num_beams} | score_denoising([hypotheses[0] for hypotheses in found], lines)


def denoising_model(loaded: LoadedModel) -> tuple[EncoderDecoder, LineTokenizer]:
    """Return the model and the tokenizer of an encoder-decoder.

    Raises:
        ValueError: it is another kind of model.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    if not isinstance(model, EncoderDecoder) or not isinstance(tokenizer, LineTokenizer):
        raise ValueError(f"{loaded.path} does not denoise lines: it has no encoder-decoder")
    return model, tokenizer


def score_denoising(denoised: list[str], lines: list[str]) -> dict[str, float]:
    """Compare denoised lines with the originals.

    Returns:
        `exact_match`: the fraction of lines without an error. `character_accuracy`: 1 - the character error rate, that
        is the edit distance over the number of characters, of all lines together.
    """
    from torchmetrics.functional.text import char_error_rate  # a second that nothing else needs

    characters = sum(map(len, lines))
    errors = round(char_error_rate(denoised, lines).item() * characters)  # exact again: the rate is a float32
    return {
        "decoded_lines": len(lines),
        "exact_match": sum(a == b for a, b in zip(denoised, lines, strict=True)) / len(lines),
        "character_accuracy": 1 - errors / characters,
    }
