"""A text as token ids, kept in a memory-mapped cache.

The cache is one file. It is rebuilt whenever it does not match the text and the tokenizer bit by bit.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from minigpt.atomic_file import atomic_write
from minigpt.data.text_files import file_hash, iter_text_chunks, locked, split_text
from minigpt.data.tokenizer import CharTokenizer, Tokenizer, load_tokenizer

CACHE_VERSION = 3
HEADER_BYTES = 4096


@dataclass(frozen=True)
class Header:
    """The header of a token cache."""

    version: int
    text_sha256: str
    val_fraction: float
    tokenizer: str  # `tokenizer_name` before training; the trained one is stored after the tokens
    token_bytes: int
    train_tokens: int
    val_tokens: int
    val_characters: int
    sha256: str  # of the other fields of the header and of everything after it


@dataclass(frozen=True)
class Corpus:
    """A text as token ids.

    Attributes:
        train: the training split, the first part of the text [tokens].
        val: the validation split, the last part [tokens].
        tokenizer: the trained tokenizer.
        text_sha256: SHA-256 of the text's file.
        val_characters: length of the validation split in characters.
    """

    train: np.ndarray
    val: np.ndarray
    tokenizer: Tokenizer
    text_sha256: str
    val_characters: int

    @property
    def tokens_per_character(self) -> float:
        """Tokens per character of the validation split."""
        return len(self.val) / self.val_characters


def load_or_tokenize(text: Path, cache_dir: Path, val_fraction: float, tokenizer: Tokenizer | None = None) -> Corpus:
    """Memory-map the tokens of a text. It is encoded first if there is no valid cache of it.

    Args:
        text: the file.
        cache_dir: directory of the caches.
        val_fraction: fraction of the characters, at the end, held out for validation. Splits are encoded separately.
        tokenizer: an untrained tokenizer, or one that stays as it is; None for characters.

    Raises:
        ValueError: the text is empty or not UTF-8, or the tokenizer's options or its vocabulary do not fit it.
    """
    tokenizer = tokenizer or CharTokenizer()
    name = tokenizer_name(tokenizer)
    text_sha256 = file_hash(text)
    cache_dir.mkdir(parents=True, exist_ok=True)
    cache = cache_dir / f"{text_sha256[:16]}-{name}-{val_fraction:g}.tokens"
    with locked(cache):
        header = read_header(cache, text_sha256, val_fraction, name)
        if header is None:
            header = build_cache(text, text_sha256, cache, val_fraction, name, tokenizer)
        count = header.train_tokens + header.val_tokens
        tokens = np.memmap(cache, dtype=f"u{header.token_bytes}", mode="r", offset=HEADER_BYTES, shape=(count,))
        with cache.open("rb") as file:
            file.seek(HEADER_BYTES + tokens.nbytes)
            tokenizer = load_tokenizer(json.load(file))
    train, val = tokens[: header.train_tokens], tokens[header.train_tokens :]
    return Corpus(train, val, tokenizer, text_sha256, header.val_characters)


def tokenizer_name(tokenizer: Tokenizer) -> str:
    """Return the kind of a tokenizer with its options, or with the hash of its vocabulary if it is trained."""
    state = tokenizer.state()
    if tokenizer.tokens:
        return f"{tokenizer.kind}-{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]}"
    return "-".join(str(value) for value in state.values() if value)


def read_header(cache: Path, text_sha256: str, val_fraction: float, tokenizer: str) -> Header | None:
    """Return the header of an intact cache of this text and tokenizer, None for any other file."""
    try:
        with cache.open("rb") as file:
            header = Header(**json.loads(file.read(HEADER_BYTES)))
        expected = (CACHE_VERSION, text_sha256, val_fraction, tokenizer)
        valid = (header.version, header.text_sha256, header.val_fraction, header.tokenizer) == expected
        valid = valid and header.sha256 == checksum(header, file_hash(cache, HEADER_BYTES))
    except (OSError, ValueError, TypeError):
        return None
    return header if valid else None


def checksum(header: Header, rest_sha256: str) -> str:
    """Return the SHA-256 of a header, without its own checksum, and of everything after it."""
    own = json.dumps(asdict(replace(header, sha256="")))
    return hashlib.sha256((own + rest_sha256).encode()).hexdigest()


def build_cache(
    text: Path, text_sha256: str, cache: Path, val_fraction: float, name: str, tokenizer: Tokenizer
) -> Header:
    """Train the tokenizer, encode the text chunk by chunk in constant memory, and write the cache atomically."""
    split = split_text(text, val_fraction)
    start = split.train_characters
    if not tokenizer.tokens:
        tokenizer = tokenizer.train("".join(split.characters), iter_text_chunks(text, 0, start))
    with atomic_write(cache) as temporary:
        with temporary.open("wb") as out:
            out.seek(HEADER_BYTES)
            train_tokens, val_tokens = (
                sum(out.write(tokenizer.encode(chunk).tobytes()) for chunk in chunks) // tokenizer.dtype.itemsize
                for chunks in (iter_text_chunks(text, 0, start), iter_text_chunks(text, start))
            )
            out.write(json.dumps(tokenizer.state()).encode())
        header = Header(
            version=CACHE_VERSION,
            text_sha256=text_sha256,
            val_fraction=val_fraction,
            tokenizer=name,
            token_bytes=tokenizer.dtype.itemsize,
            train_tokens=train_tokens,
            val_tokens=val_tokens,
            val_characters=split.val_characters,
            sha256="",
        )
        header = replace(header, sha256=checksum(header, file_hash(temporary, HEADER_BYTES)))
        with temporary.open("r+b") as out:
            out.write(json.dumps(asdict(header)).encode().ljust(HEADER_BYTES))
    return header


def encode_text(tokenizer: Tokenizer, path: Path, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, int]:
    """Encode the characters [start, stop) of a text with a trained tokenizer.

    Returns:
        The token ids, and the number of characters that they stand for.
    """
    chunks = [(tokenizer.encode(chunk), len(chunk)) for chunk in iter_text_chunks(path, start, stop)]
    tokens = np.concatenate([np.empty(0, tokenizer.dtype), *(tokens for tokens, _ in chunks)])
    return tokens, sum(length for _, length in chunks)
