"""Restoring damaged lines with an encoder-decoder, and how well that goes."""

from functools import partial

import torch

from minigpt.data.tokenizer import LineTokenizer
from minigpt.inference.beam_search import beam_search
from minigpt.model.encoder_decoder import EncoderDecoder


@torch.inference_mode()
def restore(
    model: EncoderDecoder,
    tokenizer: LineTokenizer,
    damaged: list[str],
    *,
    beam: int,
    length_penalty: float,
    batch_size: int = 64,
) -> list[list[str]]:
    """The `beam` likeliest whole lines for each damaged one, best first.

    Raises:
        ValueError: a line is too long, or has characters that the model does not know.
    """
    device = next(model.parameters()).device
    sources = torch.from_numpy(tokenizer.encode_lines(damaged, model.block_size).astype("int64"))
    sizes = (sources != tokenizer.padding).sum(dim=1)
    found: dict[int, list[str]] = {}
    for rows in sizes.argsort(stable=True).split(batch_size):  # lines of about one length end at about the same step
        source = sources[rows, : sizes[rows].max()].to(device)
        read = {name: each.repeat_interleave(beam, dim=0) for name, each in model.encode(source).items()}
        lines, _ = beam_search(
            partial(model.decode, **read),
            model.make_cache(),
            torch.full((len(rows), 1), tokenizer.begin, device=device),
            block_size=model.block_size,
            beam=beam,
            length_penalty=length_penalty,
            max_new_tokens=model.block_size,
            end=tokenizer.end,
        )
        found |= zip(rows.tolist(), ([tokenizer.decode(ids) for ids in each] for each in lines.tolist()), strict=True)
    return [found[row] for row in range(len(damaged))]


def score_restoration(restored: list[str], lines: list[str]) -> dict[str, float]:
    """How many lines are right to the letter, and 1 - edit distance / characters of them all."""
    wrong = sum(edit_distance(a, b) for a, b in zip(restored, lines, strict=True))
    return {
        "decoded_lines": len(lines),
        "exact_match": sum(a == b for a, b in zip(restored, lines, strict=True)) / len(lines),
        "character_accuracy": 1 - wrong / sum(map(len, lines)),
    }


def edit_distance(a: str, b: str) -> int:
    """The fewest insertions, deletions and replacements that make `b` of `a` (Levenshtein 1966)."""
    above = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        row = [i]
        for j, y in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
        above = row
    return above[-1]
