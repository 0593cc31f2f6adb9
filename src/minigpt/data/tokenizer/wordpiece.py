"""WordPiece."""

from collections.abc import Iterable, Sequence
from typing import Any

from minigpt.data.tokenizer.subword import LONGEST_WORD, MIN_FREQUENCY, SubwordTokenizer


class WordPieceTokenizer(SubwordTokenizer):
    """Each word, from its start, as the longest pieces that the vocabulary has.

    As in BERT (Devlin et al., arXiv 1810.04805; the matching is that of arXiv 2012.15524, section 2), but without loss.
    BERT drops blanks and marks with `##` a piece that goes on with a word; here a word keeps the blank before it, so a
    piece shows by itself where a word begins, and the pieces joined are the text. There is no piece for what is
    unknown: every character of the text is a piece, those of the validation part too, as for `CharTokenizer`, and any
    other is refused. The longer pieces are learned on the training part alone, the most frequent pairs first, which is
    how the library learns them (the published criterion is the likelihood).

    Args:
        vocab_size: the characters of the text and the longer pieces.
        pieces: what training found.
    """

    kind = "wordpiece"

    def __init__(self, *, vocab_size: int, pieces: Sequence[str] = ()) -> None:
        self.pieces = list(pieces)
        self.characters = "".join(piece for piece in self.pieces if len(piece) == 1)
        model = self.make_model({piece: token for token, piece in enumerate(self.pieces)}) if self.pieces else None
        super().__init__(vocab_size, model, [piece.encode() for piece in self.pieces])

    def make_model(self, vocabulary: dict[str, int]) -> Any:
        """The library's model, without marks; a character that is no piece never reaches it."""
        from tokenizers.models import WordPiece

        model = WordPiece(vocabulary, unk_token="", max_input_chars_per_word=LONGEST_WORD)
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
        vocabulary = self.learn(self.make_model({}), trainer, pieces).get_vocab()
        return WordPieceTokenizer(vocab_size=self.size, pieces=sorted(vocabulary, key=vocabulary.__getitem__))

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocab_size": self.size, "pieces": self.pieces}
