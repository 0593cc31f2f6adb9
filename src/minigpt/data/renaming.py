"""Rows in which people and places have other names.

A play's names fill the lines above its speeches and recur in them. A model that has read few plays knows these names by
heart, and is helpless with those of the next one. When they change from row to row, what a name is going to be must be
read from the row itself.

Shapes: B rows, T tokens of a row.
"""

import re
from collections import Counter

import numpy as np

from minigpt.data.tokenizer import Tokenizer

READ_FOR_NAMES = 10_000_000  # tokens of the text's beginning
PARTS = 20  # a name is at home in some parts of a text; `God` is in all of them
MOSTLY = 5  # times as often with a capital as without

WORD = re.compile("[A-Za-z]+")
PROPER = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\b|^[A-Z]{3,}(?=:\n)", re.MULTILINE)


class Renaming:
    """An augmentation: rows of a text, most of them with other names; one name becomes one other throughout a row.

    A new name is another one of the text's, or the beginning of one with the end of another. It is a pure function of
    the seed and the row's place in the text, as the rows are.

    Args:
        probability: of a row to be changed.
        tokens: the text's training part.
        tokenizer: what made them.
        seed: names the changes.

    Raises:
        ValueError: the text has fewer than two names.
    """

    def __init__(self, *, probability: float, tokens: np.ndarray, tokenizer: Tokenizer, seed: int) -> None:
        self.probability = probability
        self.tokens = tokens
        self.tokenizer = tokenizer
        self.seed = seed
        self.names = find_names(tokenizer.decode(tokens[:READ_FOR_NAMES].tolist()))
        if len(self.names) < 2:
            raise ValueError("data/augmentation=rename finds no names in the text: choose data/augmentation=null")

    def rows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Token ids [B, T] of the rows that begin at `starts`."""
        return np.stack([self.row(start, length) for start in starts.tolist()])

    def row(self, start: int, length: int) -> np.ndarray:
        """Token ids [T]; unchanged where a row with other names would be too short."""
        tokens = self.tokens[start : start + 2 * length]  # shorter names need more of the text
        rng = np.random.default_rng((self.seed, start))
        if rng.random() < self.probability:
            changed = self.tokenizer.encode(self.rename(self.tokenizer.decode(tokens.tolist()), rng))
            if len(changed) >= length:
                tokens = changed
        return tokens[:length]

    def rename(self, text: str, rng: np.random.Generator) -> str:
        """The text with a new name for each of its names, in capitals where the old one is."""
        new: dict[str, str] = {}

        def replace(match: re.Match[str]) -> str:
            word, name = match[0], match[0].capitalize()
            if name not in self.names or word not in (name, name.upper()):
                return word
            if name not in new:
                new[name] = self.draw(rng)
            return new[name].upper() if word.isupper() else new[name]

        return WORD.sub(replace, text)

    def draw(self, rng: np.random.Generator) -> str:
        """A name of the text's, or one made of two."""
        names = list(self.names)
        first, second = (names[i] for i in rng.integers(len(names), size=2))
        if rng.random() < 0.5:
            return first
        return first[: rng.integers(1, len(first) - 1)] + second[rng.integers(1, len(second) - 1) :]


def find_names(text: str) -> dict[str, None]:
    """The words with a capital within a sentence or above a speech, hardly ever without one, that are not everywhere.

    Returns:
        As a dictionary, which keeps their order and finds them fast. Only names whose letters the text has in both
        cases, so that its tokenizer knows all that is made of them.
    """
    counted = Counter(match[0].capitalize() for match in PROPER.finditer(text))
    words = Counter(WORD.findall(text))
    step = max(1, -(-len(text) // PARTS))
    parts = [set(WORD.findall(text[start : start + step])) for start in range(0, len(text), step)]
    letters = {letter for letter in set(text) if {letter.lower(), letter.upper()} <= set(text)}
    return {
        name: None
        for name, count in sorted(counted.items())
        if count >= MOSTLY * words[name.lower()] and letters.issuperset(name)
        and sum(name in part or name.upper() in part for part in parts) <= len(parts) / 2
    }  # fmt: skip
