"""The text that a model is scored on, and its batches."""

from pathlib import Path

from minigpt.data.corpus import encode_text
from minigpt.data.denoising import PairValLoader, read_lines
from minigpt.data.loaders import ValLoader
from minigpt.data.text_files import file_hash, locate, split_text
from minigpt.data.tokenizer import LineTokenizer
from minigpt.inference.load import LoadedModel
from minigpt.model.encoder_decoder import EncoderDecoder


def find_training_text(loaded: LoadedModel, data_dir: str) -> Path:
    """Return the file of the text that a model was trained on.

    Raises:
        ValueError: the text is missing, or has changed since the training.
    """
    recorded = loaded.text["path"]
    try:
        path = locate(recorded, data_dir)
    except ValueError as error:
        advice = "name its directory with paths.data_dir=..."
        raise ValueError(f"the text of the training, {recorded}, does not exist: {advice}") from error
    if file_hash(path) != loaded.text["sha256"]:
        raise ValueError(f"{path} has changed since the training: put the text of the training in its place")
    return path


def text_batches(
    loaded: LoadedModel, path: Path, val_fraction: float, max_characters: int | None = None
) -> tuple[ValLoader, int]:
    """Return the batches of the last part of a text, or of its first `max_characters`, and their number of characters.

    Raises:
        ValueError: the text is too short, or has characters outside the vocabulary.
    """
    start = split_text(path, val_fraction).train_characters if val_fraction < 1 else 0
    stop = None if max_characters is None else start + max_characters
    tokens, characters = encode_text(loaded.tokenizer, path, start, stop)
    if len(tokens) < 2:
        raise ValueError(f"{path} is too short to be scored")
    return ValLoader(tokens, block_size=loaded.text["block_size"], batch_size=loaded.val_batch_size), characters


def line_batches(
    loaded: LoadedModel, path: Path, val_fraction: float, max_characters: int | None = None
) -> tuple[PairValLoader, int]:
    """Return the batches of the lines in the last part of a text, and their number of characters.

    With `max_characters`, those of so many lines as can have no more characters.

    Raises:
        ValueError: there is no line, or one has characters outside the vocabulary.
    """
    _, tokenizer = denoising_model(loaded)
    block_size = loaded.text["block_size"]
    _, lines = read_lines(path, val_fraction, block_size)
    if max_characters is not None:
        lines = lines[: max(1, max_characters // block_size)]
    if not lines:
        raise ValueError(f"{path} has no line to be denoised")
    pairs = tokenizer.encode_pairs(lines, block_size)
    return PairValLoader(pairs, tokenizer, batch_size=loaded.val_batch_size), sum(map(len, lines))


def denoising_model(loaded: LoadedModel) -> tuple[EncoderDecoder, LineTokenizer]:
    """Return the model and the tokenizer of an encoder-decoder.

    Raises:
        ValueError: it is another kind of model.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    if not isinstance(model, EncoderDecoder) or not isinstance(tokenizer, LineTokenizer):
        raise ValueError(f"{loaded.path} does not denoise lines: it has no encoder-decoder")
    return model, tokenizer
