"""Text files: find or download one, check it, and read it in pieces."""

import hashlib
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from filelock import FileLock

from minigpt.atomic_file import atomic_write

CHUNK_CHARS = 1 << 16
DOWNLOAD_TIMEOUT_S = 10
LAST_BREAK = re.compile(r".*(?=\n\S)", re.DOTALL)


def locate(path: str, data_dir: str, option: str = "data.path") -> Path:
    """Return the file of a text of the user's own, which is never downloaded and may be any.

    Args:
        path: a file. A relative path is looked for in the current directory, then under `data_dir`, then under
            `../shared/data` next to the checkout (one copy for the checkouts of a team).
        data_dir: directory of the texts.
        option: the option that named the path, for the message.

    Raises:
        ValueError: there is no such file.
    """
    places = [Path(path), *places_of(path, data_dir)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        what = ", which is not a file" if any(place.exists() for place in places) else ""
        raise ValueError(f"no text at {path}{what}: give a UTF-8 file with {option}=FILE")
    return found


def locate_or_download(url: str, data_dir: str, sha256: str | None = None) -> Path:
    """Return the file of a text that has an address, and download it if it is nowhere to be found.

    Args:
        url: the address. The file is looked for at `downloaded_path(url)` under `data_dir` and under `../shared/data`.
        data_dir: directory of the texts; a download goes there.
        sha256: the expected SHA-256 of the file; None for any.

    Raises:
        ValueError: the text cannot be had, or is not the expected one. The message says how to provide it.
    """
    path = downloaded_path(url)
    places = places_of(path, data_dir)
    found = next((place for place in places if place.is_file()), None)
    if found is not None:
        check_hash(found, sha256, f"delete {found} to download it again")
        return found
    try:
        return download(url, places[0], sha256)
    except OSError as error:
        raise ValueError(
            f"{path} does not exist and could not be downloaded ({root_cause(error)}): put the file at {places[0]}, "
            f"or set its directory with MINIGPT_DATA_DIR, or train on a synthetic text with data=synthetic"
        ) from error


def places_of(path: str, data_dir: str) -> list[Path]:
    """Return where a relative path is looked for: in the directory of texts, then in that beside the checkout."""
    shared = Path(__file__).parents[3] / ".." / "shared" / "data"
    return [Path(data_dir) / path, shared / path]


def downloaded_path(url: str) -> str:
    """Return the path of a download below the directory of the texts: the last two parts of its address."""
    parts = [part for part in urlsplit(url).path.split("/") if part not in ("", ".", "..")]
    if not parts:
        raise ValueError(f"data.url={url} is not the address of a file")
    return "/".join(parts[-2:])


def download(url: str, target: Path, sha256: str | None) -> Path:
    """Download `url` to `target`, once even if several processes ask, with a progress bar if stderr is a terminal.

    Raises:
        OSError: the server cannot be reached or refuses, or the file cannot be written.
        ValueError: the file has another SHA-256.
    """
    import pooch  # a tenth of a second that is needed only once

    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target):
        if not target.is_file():
            with atomic_write(target) as temporary:
                fetch = pooch.HTTPDownloader(sys.stderr.isatty(), chunk_size=1 << 14, timeout=DOWNLOAD_TIMEOUT_S)
                fetch(url, str(temporary), None)
                check_hash(temporary, sha256, f"{url} sent another text")
    return target


def root_cause(error: BaseException) -> BaseException:
    """Return the first error of a chain: the system's own words instead of a report of the HTTP library."""
    return error if error.__context__ is None else root_cause(error.__context__)


def check_hash(path: Path, sha256: str | None, advice: str) -> None:
    """Raise ValueError if the SHA-256 of the file is not the expected one."""
    if sha256 is not None and (actual := file_hash(path)) != sha256:
        raise ValueError(f"{path} is not the expected text (SHA-256 {actual[:12]}…, not {sha256[:12]}…): {advice}")


def file_hash(path: Path, start: int = 0) -> str:
    """Return the SHA-256 of a file from byte `start` on."""
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.file_digest(file, "sha256").hexdigest()


def locked(path: Path) -> FileLock:
    """Return a context manager that lets one process at a time work on `path`."""
    return FileLock(path.with_name(path.name + ".lock"))


def iter_text(path: Path) -> Iterator[str]:
    """Yield the text in pieces of up to CHUNK_CHARS. A byte-order mark is dropped, CRLF becomes LF.

    Raises:
        ValueError: the file is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            while piece := file.read(CHUNK_CHARS):
                yield piece
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}: {error.reason}): convert it first") from error


def iter_text_chunks(path: Path, start: int = 0, stop: int | None = None) -> Iterator[str]:
    """Yield the characters [start, stop) of a text in chunks that end where no token of any tokenizer crosses.

    That is before a line break that is followed by a non-blank character. Only a line longer than CHUNK_CHARS is cut
    within.
    """
    rest, position = "", 0
    for piece in iter_text(path):
        rest += piece[max(start - position, 0) : None if stop is None else max(stop - position, 0)]
        position += len(piece)
        cut = match.end() if (match := LAST_BREAK.match(rest)) else 0
        if not cut and len(rest) >= CHUNK_CHARS:
            cut = len(rest)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


class TextSplit(NamedTuple):
    """The characters that occur in a text, and the lengths of its training and validation splits in characters."""

    characters: set[str]
    train_characters: int
    val_characters: int


def split_text(path: Path, val_fraction: float) -> TextSplit:
    """Divide a text: its last `val_fraction`, rounded up to whole characters, is the validation split.

    Raises:
        ValueError: the text is empty or not UTF-8.
    """
    characters: set[str] = set()
    length = 0
    for piece in iter_text(path):
        characters.update(piece)
        length += len(piece)
    if not length:
        raise ValueError(f"{path} is empty: there is nothing to learn")
    val_characters = math.ceil(length * val_fraction)
    return TextSplit(characters, length - val_characters, val_characters)
