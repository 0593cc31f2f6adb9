"""Where a text comes from, and its token cache.

A text is looked for in the data folder, then beside the checkout, then downloaded. Its tokens are kept in one
memory-mapped file that is rebuilt whenever it does not match the text and the tokenizer to the letter.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock

from minigpt.data.tokenizer import CharTokenizer, Tokenizer, load_tokenizer

CACHE_VERSION = 3
HEADER_BYTES = 4096
CHUNK_CHARS = 1 << 16
LAST_BREAK = re.compile(r".*(?=\n\S)", re.DOTALL)


def find_text(path: str, data_dir: str, url: str | None = None, sha256: str | None = None) -> Path:
    """The file of a text, downloaded when it is nowhere to be found.

    Args:
        path: a file; a relative one is also looked for under `data_dir`, then under `../shared/data` beside the
            checkout (one copy for a team's checkouts).
        data_dir: where texts are kept; a download goes there.
        url: where to download it from; None means never.
        sha256: what the found or downloaded file must hash to; None means anything.

    Raises:
        ValueError: the text cannot be had, or is another one; says the ways to provide it.
    """
    shared = Path(__file__).parents[3] / ".." / "shared" / "data"
    places = [Path(data_dir) / path, shared / path]
    found = next((p for p in (places if url else [Path(path), *places]) if p.is_file()), None)
    if found is not None:
        check_hash(found, sha256, f"delete {found} to download it anew")
        return found
    if url is None:
        raise ValueError(f"no text at {path}: give a UTF-8 file with data.path=FILE")
    try:
        return download(url, places[0], sha256)
    except OSError as error:
        raise ValueError(
            f"{path} is not there and could not be downloaded ({error}): put the file at {places[0]}, "
            f"or name its folder with MINIGPT_DATA_DIR, or train on a generated text with data=pocket"
        ) from error


def download(url: str, target: Path, sha256: str | None) -> Path:
    """Fetch `url` to `target`, once even when several processes ask: lock, temporary file, hash, rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target):
        if not target.is_file():
            with replacing(target) as temporary, urllib.request.urlopen(url, timeout=10) as response:
                with temporary.open("wb") as out:
                    while piece := response.read(1 << 20):
                        out.write(piece)
                check_hash(temporary, sha256, f"{url} sent another text")
    return target


def check_hash(path: Path, sha256: str | None, advice: str) -> None:
    """Raises ValueError when the file's SHA-256 is not the expected one."""
    if sha256 is not None and (actual := file_hash(path)) != sha256:
        raise ValueError(f"{path} is not the expected text (SHA-256 {actual[:12]}…, not {sha256[:12]}…): {advice}")


def file_hash(path: Path, start: int = 0) -> str:
    """SHA-256 of a file from byte `start` on."""
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.file_digest(file, "sha256").hexdigest()


def locked(path: Path) -> FileLock:
    """Only one process at a time works on `path`."""
    return FileLock(path.with_name(path.name + ".lock"))


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary file beside `target` that takes its place when all went well, and vanishes otherwise."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def read_text(path: Path) -> Iterator[str]:
    """The text in pieces. A byte-order mark is dropped, CRLF becomes LF.

    Raises:
        ValueError: when it is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            while piece := file.read(CHUNK_CHARS):
                yield piece
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}: {error.reason}): convert it first") from error


def split_text(path: Path, val_fraction: float) -> tuple[set[str], int, int]:
    """The characters of a text, and how many of its beginning are trained on and of its end held out.

    Raises:
        ValueError: the text is empty or not UTF-8.
    """
    characters: set[str] = set()
    length = 0
    for piece in read_text(path):
        characters.update(piece)
        length += len(piece)
    if not length:
        raise ValueError(f"{path} is empty: there is nothing to learn")
    held_out = round_up(length * val_fraction)
    return characters, length - held_out, held_out


def read_part(path: Path, start: int = 0, stop: int | None = None) -> Iterator[str]:
    """The characters [start, stop) of a text in pieces, cut where no token of any tokenizer can be.

    That is in front of a line break that is followed by something else than a blank; only a line that is longer than
    CHUNK_CHARS is cut within.
    """
    rest, place = "", 0
    for piece in read_text(path):
        rest += piece[max(start - place, 0) : None if stop is None else max(stop - place, 0)]
        place += len(piece)
        cut = found.end() if (found := LAST_BREAK.match(rest)) else 0
        if not cut and len(rest) >= CHUNK_CHARS:
            cut = len(rest)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


@dataclass(frozen=True)
class Header:
    """What a token cache says about itself."""

    version: int
    text_sha256: str
    val_fraction: float
    tokenizer: str  # before its training; the trained one stands after the tokens
    token_bytes: int
    train_tokens: int
    val_tokens: int
    val_characters: int
    sha256: str  # of everything else in the header and of all that follows it


@dataclass(frozen=True)
class Corpus:
    """A text as tokens: the first part to train on, the last to validate on."""

    train: np.ndarray
    val: np.ndarray
    tokenizer: Tokenizer
    text_sha256: str
    val_characters: int

    @property
    def tokens_per_character(self) -> float:
        """Tokens of the validation part for each of its characters."""
        return len(self.val) / self.val_characters


def open_corpus(text: Path, cache_dir: Path, val_fraction: float, tokenizer: Tokenizer | None = None) -> Corpus:
    """The tokens of a text, memory-mapped; encoded first when the cache is missing, damaged or of another text.

    Args:
        text: the file.
        cache_dir: where caches are kept.
        val_fraction: the last part of the characters, held out. Both parts are encoded by themselves.
        tokenizer: one before its training; of characters when None.

    Raises:
        ValueError: the text is empty or not UTF-8, or does not give what the tokenizer asks for.
    """
    tokenizer = tokenizer or CharTokenizer()
    name = "-".join(str(value) for value in tokenizer.state().values() if value)  # its kind and options
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


def read_header(cache: Path, text_sha256: str, val_fraction: float, tokenizer: str) -> Header | None:
    """The header of a cache that is whole, and of this text and tokenizer; None for any other file."""
    try:
        with cache.open("rb") as file:
            header = Header(**json.loads(file.read(HEADER_BYTES)))
        wanted = (CACHE_VERSION, text_sha256, val_fraction, tokenizer)
        sound = (header.version, header.text_sha256, header.val_fraction, header.tokenizer) == wanted
        sound = sound and header.sha256 == seal(header, file_hash(cache, HEADER_BYTES))
    except (OSError, ValueError, TypeError):
        return None
    return header if sound else None


def seal(header: Header, rest_sha256: str) -> str:
    """SHA-256 of a header, without its own, and of what follows it."""
    own = json.dumps(asdict(replace(header, sha256="")))
    return hashlib.sha256((own + rest_sha256).encode()).hexdigest()


def build_cache(
    text: Path, text_sha256: str, cache: Path, val_fraction: float, name: str, tokenizer: Tokenizer
) -> Header:
    """Train the tokenizer, encode the text piece by piece, in constant memory, and put the cache in its place whole."""
    characters, train, held_out = split_text(text, val_fraction)
    tokenizer = tokenizer.train("".join(characters), read_part(text, 0, train))
    with replacing(cache) as temporary:
        with temporary.open("wb") as out:
            out.seek(HEADER_BYTES)
            train_tokens, val_tokens = (
                sum(out.write(tokenizer.encode(piece)) for piece in part) // tokenizer.dtype.itemsize
                for part in (read_part(text, 0, train), read_part(text, train))
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
            val_characters=held_out,
            sha256="",
        )
        header = replace(header, sha256=seal(header, file_hash(temporary, HEADER_BYTES)))
        with temporary.open("r+b") as out:
            out.write(json.dumps(asdict(header)).encode().ljust(HEADER_BYTES))
    return header


def encode_part(tokenizer: Tokenizer, path: Path, start: int = 0) -> tuple[np.ndarray, int]:
    """The tokens of a text from character `start` on, by a trained tokenizer, and how many characters they are."""
    pieces = [(tokenizer.encode(piece), len(piece)) for piece in read_part(path, start)]
    tokens = np.concatenate([np.empty(0, tokenizer.dtype), *(tokens for tokens, _ in pieces)])
    return tokens, sum(length for _, length in pieces)


def round_up(value: float) -> int:
    """Ceiling, so that the training part is floor((1 - val_fraction) * length) as everybody splits this text."""
    return int(-(-value // 1))
