"""Byte-pair encoding."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from minigpt.data.tokenizer.base import byte_letters
from minigpt.data.tokenizer.subword import MIN_FREQUENCY, SubwordTokenizer

if TYPE_CHECKING:  # imported where it is used: most runs need no subwords
    from tokenizers.decoders import Decoder
    from tokenizers.pre_tokenizers import PreTokenizer


class BPETokenizer(SubwordTokenizer):
    """Byte-level BPE: starts from the 256 bytes and repeatedly merges the most frequent pair of tokens.

    Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (arXiv 1508.07909, section 3.2), on
    bytes as in GPT-2 (Radford et al., 2019, section 2.2), so any text can be encoded.

    Args:
        vocab_size: number of tokens: the 256 bytes and the merges.
        merges: the merges in order, found by training, each as its two parts separated by a blank.

    Raises:
        ValueError: `vocab_size` leaves no room for a merge.
    """

    kind = "bpe"

    def __init__(self, *, vocab_size: Annotated[int, Ge(2), Le(1_000_000)], merges: Sequence[str] = ()) -> None:
        if vocab_size <= 256:
            raise ValueError(f"data.tokenizer.vocab_size={vocab_size} must be at least 257: BPE begins with 256 bytes")
        self.merges = list(merges)
        model, tokens = None, []
        if self.merges:
            from tokenizers.models import BPE

            letters = byte_letters()
            byte_of = {letter: byte for byte, letter in enumerate(letters)}
            pairs = [split_merge(merge) for merge in self.merges]
            names = list(dict.fromkeys([*letters, *map("".join, pairs)]))  # two pairs may make the same token
            model = BPE({name: token for token, name in enumerate(names)}, pairs)
            tokens = [bytes(byte_of[letter] for letter in name) for name in names]
        super().__init__(vocab_size, model, tokens)

    def extra_pre_tokenizers(self) -> "list[PreTokenizer]":
        from tokenizers.pre_tokenizers import ByteLevel

        return [ByteLevel(add_prefix_space=False, use_regex=False)]

    def make_decoder(self) -> "Decoder":
        from tokenizers.decoders import ByteLevel

        return ByteLevel()

    def train(self, characters: str, pieces: Iterable[str]) -> "BPETokenizer":
        from tokenizers.models import BPE
        from tokenizers.trainers import BpeTrainer

        trainer = BpeTrainer(
            vocab_size=self.size,
            min_frequency=MIN_FREQUENCY,
            show_progress=False,
            initial_alphabet=byte_letters(),
        )
        trained = self.train_pipeline(BPE(), trainer, pieces)
        merges = json.loads(trained.to_str())["model"]["merges"]
        return BPETokenizer(vocab_size=self.size, merges=[" ".join(pair) for pair in merges])

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocab_size": self.size, "merges": self.merges}


def split_merge(merge: str) -> tuple[str, str]:
    """Return the two parts of a merge.

    Raises:
        ValueError: it does not have two parts.
    """
    first, blank, second = merge.partition(" ")
    if not blank or " " in second:
        raise ValueError(f"the merge {merge!r} must have two parts")
    return first, second
