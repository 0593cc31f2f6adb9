"""Augmentation that gives the people and places of a sequence other names.

The names of a play stand above its speeches and recur in them. A model that has read few plays memorizes these names
and does not cope with those of another play. If names change from sequence to sequence, they must be read from the
context.

Shapes: N sequences, T tokens of a sequence.
"""

import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from minigpt.bounds import Fraction, Seed
from minigpt.data.tokenizer import Tokenizer

MAX_TOKENS_READ = 10_000_000  # of the beginning of the text, to find its names
NUM_SECTIONS = 20  # a name occurs in at most half of the sections of a text; `God` occurs in all of them
CAPITAL_RATIO = 5  # a name is so many times as frequent with a capital as without

WORD = re.compile("[A-Za-z]+")
PROPER = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\b|^[A-Z]{3,}(?=:\n)", re.MULTILINE)


class EntityRenaming:
    """Renames the people and places of a sequence; each name is replaced by one other name throughout.

    A new name is another name of the text, or the beginning of one with the end of another. It is a pure function of
    the seed and the position of the sequence in the text.

    Args:
        probability: probability that a sequence is changed.
        tokens: the training split [number of tokens].
        tokenizer: the tokenizer of the text.
        seed: seed of the changes.

    Raises:
        ValueError: the text has fewer than two names.
    """

    def __init__(self, *, probability: Fraction, tokens: np.ndarray, tokenizer: Tokenizer, seed: Seed) -> None:
        self.probability = probability
        self.tokens = tokens
        self.tokenizer = tokenizer
        self.seed = seed
        self.names = find_names(tokenizer.decode(tokens[:MAX_TOKENS_READ].tolist()))
        if len(self.names) < 2:
            raise ValueError("data/augmentation=rename finds no names in the text: choose data/augmentation=null")

    def sequences(self, start_indices: NDArray[np.int64], length: int) -> np.ndarray:
        """Return the token ids [N, length] of the sequences that start at `start_indices` [N]."""
        return np.stack([self.sequence(start, length) for start in start_indices.tolist()])

    def sequence(self, start: int, length: int) -> np.ndarray:
        """Return the token ids [length] of one sequence, unchanged if it would be too short with other names."""
        tokens = self.tokens[start : start + 2 * length]  # shorter names need more of the text
        rng = np.random.default_rng((self.seed, start))
        if rng.random() < self.probability:
            changed = self.tokenizer.encode(self.rename(self.tokenizer.decode(tokens.tolist()), rng))
            if len(changed) >= length:
                tokens = changed
        return tokens[:length]

    def rename(self, text: str, rng: np.random.Generator) -> str:
        """Replace each name of a text, in capitals where the old name is."""
        new: dict[str, str] = {}

        def replace(match: re.Match[str]) -> str:
            word, name = match[0], match[0].capitalize()
            if name not in self.names or word not in (name, name.upper()):
                return word
            if name not in new:
                new[name] = self.sample_name(rng)
            return new[name].upper() if word.isupper() else new[name]

        return WORD.sub(replace, text)

    def sample_name(self, rng: np.random.Generator) -> str:
        """Return a name of the text, or a combination of two."""
        names = list(self.names)
        first, second = (names[i] for i in rng.integers(len(names), size=2))
        if rng.random() < 0.5:
            return first
        return first[: rng.integers(1, len(first) - 1)] + second[rng.integers(1, len(second) - 1) :]


def find_names(text: str) -> dict[str, None]:
    """Find the names of a text by counting.

    A name is capitalized within a sentence or above a speech, rarely occurs in lower case, and does not occur in most
    sections of the text.

    Returns:
        The names as keys of a dictionary, for their order and fast look-up. The text has each of their letters in both
        cases, so its tokenizer can encode any combination of them.
    """
    proper = Counter(match[0].capitalize() for match in PROPER.finditer(text))
    words = Counter(WORD.findall(text))
    size = max(1, -(-len(text) // NUM_SECTIONS))
    sections = [set(WORD.findall(text[start : start + size])) for start in range(0, len(text), size)]
    letters = {letter for letter in set(text) if {letter.lower(), letter.upper()} <= set(text)}
    return {
        name: None
        for name, count in sorted(proper.items())
        if count >= CAPITAL_RATIO * words[name.lower()] and letters.issuperset(name)
        and sum(name in section or name.upper() in section for section in sections) <= len(sections) / 2
    }  # fmt: skip
