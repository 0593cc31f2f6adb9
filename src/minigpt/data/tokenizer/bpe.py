"""Byte-pair encoding."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from minigpt.data.tokenizer.subword import MIN_FREQUENCY, SubwordTokenizer


def byte_letters() -> list[str]:
    """The letter that the library writes for each byte: printable Latin-1 for itself, U+0100 and up for the others."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


class BPETokenizer(SubwordTokenizer):
    """Byte-level BPE: the 256 bytes, and the most frequent pair of tokens merged again and again.

    Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (arXiv 1508.07909, section 3.2), on
    bytes as in GPT-2 (Radford et al., 2019, section 2.2): so there is no text that it cannot encode.

    Args:
        vocab_size: the 256 bytes and the merges.
        merges: what training found, in order, each as its two parts with a blank between them.

    Raises:
        ValueError: there is no room for a merge.
    """

    kind = "bpe"

    def __init__(self, *, vocab_size: int, merges: Sequence[str] = ()) -> None:
        if vocab_size <= 256:
            raise ValueError(f"data.tokenizer.vocab_size={vocab_size} must be at least 257: BPE begins with 256 bytes")
        self.merges = list(merges)
        model, tokens = None, []
        if self.merges:
            from tokenizers.models import BPE

            letters = byte_letters()
            byte_of = {letter: byte for byte, letter in enumerate(letters)}
            pairs = [tuple(merge.split(" ")) for merge in self.merges]
            names = list(dict.fromkeys([*letters, *map("".join, pairs)]))  # two pairs may make the same token
            model = BPE({name: token for token, name in enumerate(names)}, pairs)
            tokens = [bytes(byte_of[letter] for letter in name) for name in names]
        super().__init__(vocab_size, model, tokens)

    def letters(self) -> list[Any]:
        from tokenizers.pre_tokenizers import ByteLevel

        return [ByteLevel(add_prefix_space=False, use_regex=False)]

    def train(self, characters: str, pieces: Iterable[str]) -> "BPETokenizer":
        from tokenizers.models import BPE
        from tokenizers.trainers import BpeTrainer

        options = {"vocab_size": self.size, "min_frequency": MIN_FREQUENCY, "show_progress": False}
        trained = self.learn(BPE(), BpeTrainer(initial_alphabet=byte_letters(), **options), pieces)
        merges = json.loads(trained.to_str())["model"]["merges"]
        return BPETokenizer(vocab_size=self.size, merges=[" ".join(pair) for pair in merges])

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocab_size": self.size, "merges": self.merges}
