"""Where a text comes from, and its token cache.

A text is looked for in the data folder, then beside the checkout, then downloaded. Its tokens are kept in one
memory-mapped file that is rebuilt whenever it does not match the text to the letter.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock

from minigpt.data.tokenizer import CharTokenizer

CACHE_VERSION = 2
HEADER_BYTES = 64 * 1024  # the header holds the vocabulary too
CHUNK_CHARS = 1 << 22


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


@dataclass(frozen=True)
class Header:
    """What a token cache says about itself."""

    version: int
    text_sha256: str
    val_fraction: float
    characters: str
    train_tokens: int
    val_tokens: int
    sha256: str  # of everything else in the header and of all tokens


@dataclass(frozen=True)
class Corpus:
    """A text as tokens: the first part to train on, the last to validate on."""

    train: np.ndarray
    val: np.ndarray
    tokenizer: CharTokenizer
    text_sha256: str


def open_corpus(text: Path, cache_dir: Path, val_fraction: float) -> Corpus:
    """The tokens of a text, memory-mapped; encoded first when the cache is missing, damaged or of another text.

    Raises:
        ValueError: the text is empty or not UTF-8.
    """
    text_sha256 = file_hash(text)
    cache_dir.mkdir(parents=True, exist_ok=True)
    cache = cache_dir / f"{text_sha256[:16]}-char-{val_fraction:g}.tokens"
    with locked(cache):
        header = read_header(cache, text_sha256, val_fraction)
        if header is None:
            header = build_cache(text, text_sha256, cache, val_fraction)
    tokenizer = CharTokenizer(header.characters)
    tokens = np.memmap(cache, dtype=tokenizer.dtype, mode="r", offset=HEADER_BYTES)
    return Corpus(tokens[: header.train_tokens], tokens[header.train_tokens :], tokenizer, text_sha256)


def read_header(cache: Path, text_sha256: str, val_fraction: float) -> Header | None:
    """The header of a cache that is whole and of this text; None for any other file."""
    try:
        with cache.open("rb") as file:
            header = Header(**json.loads(file.read(HEADER_BYTES)))
        wanted = (CACHE_VERSION, text_sha256, val_fraction)
        sound = (header.version, header.text_sha256, header.val_fraction) == wanted
        sound = sound and header.sha256 == seal(header, file_hash(cache, HEADER_BYTES))
    except (OSError, ValueError, TypeError):
        return None
    return header if sound else None


def seal(header: Header, tokens_sha256: str) -> str:
    """SHA-256 of a header, without its own, and of the tokens after it."""
    rest = json.dumps(asdict(replace(header, sha256="")))
    return hashlib.sha256((rest + tokens_sha256).encode()).hexdigest()


def build_cache(text: Path, text_sha256: str, cache: Path, val_fraction: float) -> Header:
    """Encode a text piece by piece, in constant memory, and put the cache in its place whole."""
    characters: set[str] = set()
    length = 0
    for piece in read_text(text):
        characters.update(piece)
        length += len(piece)
    if not length:
        raise ValueError(f"{text} is empty: there is nothing to learn")
    tokenizer = CharTokenizer("".join(characters))
    train_tokens = length - round_up(length * val_fraction)
    with replacing(cache) as temporary:
        with temporary.open("wb") as out:
            out.seek(HEADER_BYTES)
            for piece in read_text(text):
                out.write(tokenizer.encode(piece).tobytes())
        header = Header(
            version=CACHE_VERSION,
            text_sha256=text_sha256,
            val_fraction=val_fraction,
            characters=tokenizer.characters,
            train_tokens=train_tokens,
            val_tokens=length - train_tokens,
            sha256="",
        )
        header = replace(header, sha256=seal(header, file_hash(temporary, HEADER_BYTES)))
        encoded = json.dumps(asdict(header)).encode().ljust(HEADER_BYTES)
        if len(encoded) > HEADER_BYTES:
            raise ValueError(f"{text} has {len(characters)} different characters: too many for a character model")
        with temporary.open("r+b") as out:
            out.write(encoded)
    return header


def round_up(value: float) -> int:
    """Ceiling, so that the training part is floor((1 - val_fraction) * length) as everybody splits this text."""
    return int(-(-value // 1))
