"""The pipeline around a model of the `tokenizers` library, shared by the subword tokenizers."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from minigpt.data.tokenizer.base import Tokenizer

if TYPE_CHECKING:  # imported where it is used: most runs need no subwords
    import tokenizers
    from tokenizers.decoders import Decoder
    from tokenizers.models import Model
    from tokenizers.pre_tokenizers import PreTokenizer
    from tokenizers.trainers import Trainer

# No token crosses these, as in GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019):
# a word, a number or a run of punctuation, each with the blank before it; else blanks, the last one by itself.
WORDS = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"
MAX_WORD_CHARS = 64  # longer words are cut, since WordPiece takes quadratic time in them
MIN_FREQUENCY = 2  # a pair of tokens that occurs once is not merged


class SubwordTokenizer(Tokenizer):
    """Splits words into pieces of a vocabulary of a given size.

    Nothing is normalized, blanks belong to the words, and there are no special tokens, so the tokens of a text joined
    are the text itself.

    Args:
        vocab_size: exact number of tokens.
        model: the trained model of the library; None before training.
        tokens: the bytes of each token of the model.

    Raises:
        ValueError: the tokens are not distinct, or not `vocab_size` in number.
    """

    def __init__(self, vocab_size: int, model: "Model | None", tokens: Sequence[bytes]) -> None:
        self.size = vocab_size
        self.tokens = tokens
        if model is not None:
            if len(set(tokens)) != vocab_size:
                raise ValueError(f"the vocabulary has {len(set(tokens))} tokens, not {vocab_size}")
            self._pipeline = self.make_pipeline(model)

    def make_pipeline(self, model: "Model") -> "tokenizers.Tokenizer":
        """Return the library's tokenizer with a model, trained or not."""
        from tokenizers import Regex, Tokenizer, pre_tokenizers

        pipeline = Tokenizer(model)
        words = [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.FixedLength(MAX_WORD_CHARS)]
        pipeline.pre_tokenizer = pre_tokenizers.Sequence([*words, *self.extra_pre_tokenizers()])
        return pipeline

    def extra_pre_tokenizers(self) -> "list[PreTokenizer]":
        """Return the pre-tokenizers that follow the split into words."""
        return []

    def make_decoder(self) -> "Decoder":
        """Return the library's decoder, which joins the tokens of `to_library`."""
        from tokenizers.decoders import Fuse

        return Fuse()

    def to_library(self) -> "tokenizers.Tokenizer":
        from tokenizers import Tokenizer

        library = Tokenizer.from_str(self._pipeline.to_str())
        library.decoder = self.make_decoder()
        return library

    def train_pipeline(self, model: "Model", trainer: "Trainer", pieces: Iterable[str]) -> "tokenizers.Tokenizer":
        """Return the library's tokenizer, with its model trained on pieces of a text to `vocab_size` tokens.

        Raises:
            ValueError: the text has too few patterns for that many tokens.
        """
        pipeline = self.make_pipeline(model)
        pipeline.train_from_iterator(pieces, trainer)
        if (limit := pipeline.get_vocab_size()) < self.size:
            raise ValueError(
                f"data.tokenizer.vocab_size={self.size} must be at most {limit}: "
                f"the training split of the text has no more patterns"
            )
        return pipeline

    def encode(self, text: str) -> np.ndarray:
        self.check_vocabulary(text)
        return np.array(self._pipeline.encode_batch_fast([text])[0].ids, dtype=self.dtype)
