"""WordPiece."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Le

from minigpt.data.tokenizer.subword import MAX_WORD_CHARS, MIN_FREQUENCY, SubwordTokenizer


class WordPieceTokenizer(SubwordTokenizer):
    """Greedy longest-match-first subword tokenization.

    As in BERT (Devlin et al., arXiv 1810.04805; the matching is that of arXiv 2012.15524, section 2), but lossless.
    BERT drops blanks and marks a piece that continues a word with `##`. Here a word keeps the blank before it, so a
    piece itself shows where a word begins, and the pieces joined are the text. There is no unknown token: each
    character of the text is a piece, including those of the validation split, as for `CharTokenizer`, and any other
    character is refused. The longer pieces are learned on the training split only, most frequent pairs first, which is
    how the library learns them (the published criterion is the likelihood).

    Args:
        vocab_size: number of tokens: the characters of the text and the longer pieces.
        pieces: the vocabulary, found by training.
    """

    kind = "wordpiece"

    def __init__(self, *, vocab_size: Annotated[int, Ge(2), Le(1_000_000)], pieces: Sequence[str] = ()) -> None:
        self.pieces = list(pieces)
        self.characters = "".join(piece for piece in self.pieces if len(piece) == 1)
        model = self.make_model({piece: token for token, piece in enumerate(self.pieces)}) if self.pieces else None
        super().__init__(vocab_size, model, [piece.encode() for piece in self.pieces])

    def make_model(self, vocabulary: dict[str, int]) -> Any:
        """Return the library's model without `##` marks. A character outside the vocabulary never reaches it."""
        from tokenizers.models import WordPiece

        model = WordPiece(vocabulary, unk_token="", max_input_chars_per_word=MAX_WORD_CHARS)
        model.continuing_subword_prefix = ""
        return model

    def train(self, characters: str, pieces: Iterable[str]) -> "WordPieceTokenizer":
        from tokenizers.trainers import WordPieceTrainer

        if self.size <= len(characters):
            raise ValueError(
                f"data.tokenizer.vocab_size={self.size} must be at least {len(characters) + 1}: "
                f"WordPiece begins with the {len(characters)} characters of the text"
            )
        trainer = WordPieceTrainer(
            vocab_size=self.size,
            min_frequency=MIN_FREQUENCY,
            show_progress=False,
            initial_alphabet=sorted(characters),
            continuing_subword_prefix="",
        )
        vocabulary = self.train_pipeline(self.make_model({}), trainer, pieces).get_vocab()
        return WordPieceTokenizer(vocab_size=self.size, pieces=sorted(vocabulary, key=vocabulary.__getitem__))

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocab_size": self.size, "pieces": self.pieces}
