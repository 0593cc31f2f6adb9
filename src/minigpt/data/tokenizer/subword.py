"""What the subword tokenizers share: the pipeline around a model of the `tokenizers` library."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minigpt.data.tokenizer.base import Tokenizer

if TYPE_CHECKING:  # imported where it is used: most runs need no subwords
    import tokenizers

# What no token crosses, as in GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019):
# a word, a number or a run of marks, each with the blank before it; else blanks, the last one apart from the others.
WORDS = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"
LONGEST_WORD = 64  # characters; longer ones are cut, since WordPiece takes quadratic time in them
MIN_FREQUENCY = 2  # a pair of tokens that occurs once is no pattern


class SubwordTokenizer(Tokenizer):
    """Words, cut into the pieces that a vocabulary of a chosen size has.

    Nothing is normalised, blanks belong to the words, and no text is special, so that the tokens of a text joined are
    the text itself.

    Args:
        vocab_size: how many tokens there are, exactly.
        model: the trained model of the library; None before training.
        tokens: the bytes of each token of the model.
    """

    def __init__(self, vocab_size: int, model: "tokenizers.models.Model | None", tokens: Sequence[bytes]) -> None:
        self.size = vocab_size
        self.tokens = tokens
        if model is not None:
            if len(set(tokens)) != vocab_size:
                raise ValueError(f"it has {len(set(tokens))} tokens, not {vocab_size}")
            self._pipeline = self.make_pipeline(model)

    def make_pipeline(self, model: "tokenizers.models.Model") -> "tokenizers.Tokenizer":
        """The library's tokenizer with a model, trained or not."""
        from tokenizers import Regex, Tokenizer, pre_tokenizers

        pipeline = Tokenizer(model)
        words = [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.FixedLength(LONGEST_WORD)]
        pipeline.pre_tokenizer = pre_tokenizers.Sequence([*words, *self.letters()])
        return pipeline

    def letters(self) -> list[Any]:
        """What turns the characters of a word into the letters that the model knows."""
        return []

    def learn(self, model: "tokenizers.models.Model", trainer: Any, pieces: Iterable[str]) -> "tokenizers.Tokenizer":
        """The library's tokenizer, its model trained on pieces of a text to `vocab_size` tokens.

        Raises:
            ValueError: the text has too few patterns for as many tokens.
        """
        pipeline = self.make_pipeline(model)
        pipeline.train_from_iterator(pieces, trainer)
        if (most := pipeline.get_vocab_size()) < self.size:
            raise ValueError(
                f"data.tokenizer.vocab_size={self.size} must be at most {most}: "
                f"the training part of the text has no more patterns than that"
            )
        return pipeline

    def encode(self, text: str) -> np.ndarray:
        self.refuse_strangers(text)
        return np.array(self._pipeline.encode_batch_fast([text])[0].ids, dtype=self.dtype)
