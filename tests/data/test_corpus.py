"""Finding, fetching, encoding and caching a text."""

import hashlib
import http.server
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from minigpt.data.corpus import HEADER_BYTES, find_text, open_corpus, read_text, round_up
from minigpt.data.datamodule import PocketDataModule
from minigpt.data.pocket import make_play
from minigpt.data.streams import IGNORED, ValidationStream
from minigpt.data.tokenizer import CharTokenizer, load_tokenizer

TEXT = "Hear me, you wrangling pirates!\n" * 40


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def server(tmp_path):
    """A web server that counts its requests and takes its time."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            threading.Event().wait(0.2)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(TEXT.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/input.txt", requests
        httpd.shutdown()


def test_the_last_tenth_is_held_out_and_nothing_is_lost(text, tmp_path):
    corpus = open_corpus(text, tmp_path / "cache", 0.1)
    assert len(corpus.train) == int(0.9 * len(TEXT)) and len(corpus.train) + len(corpus.val) == len(TEXT)
    tokens = np.concatenate((corpus.train, corpus.val))
    assert corpus.tokenizer.decode(tokens) == TEXT


@pytest.mark.parametrize(("length", "fraction", "val"), [(1_115_394, 0.1, 111_540), (1000, 0.1, 100), (11, 0.1, 2)])
def test_the_split_rounds_as_everybody_does(length, fraction, val):
    assert round_up(length * fraction) == val == length - int(length * (1 - fraction))


@pytest.mark.parametrize("place", [HEADER_BYTES + 7, 20, 180, 250, -1])
def test_a_damaged_cache_is_rebuilt(text, tmp_path, place):
    before = np.array(open_corpus(text, tmp_path / "cache", 0.1).train)
    (cache,) = (tmp_path / "cache").glob("*.tokens")
    whole = cache.read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 1
    cache.write_bytes(damaged)
    after = open_corpus(text, tmp_path / "cache", 0.1)
    assert cache.read_bytes() == whole
    assert np.array_equal(after.train, before)


def test_a_cut_cache_is_rebuilt(text, tmp_path):
    open_corpus(text, tmp_path / "cache", 0.1)
    (cache,) = (tmp_path / "cache").glob("*.tokens")
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-100])
    open_corpus(text, tmp_path / "cache", 0.1)
    assert cache.read_bytes() == whole


def test_a_changed_text_gets_a_cache_of_its_own(text, tmp_path):
    open_corpus(text, tmp_path / "cache", 0.1)
    text.write_text(TEXT.replace("pirates", "parrots"), encoding="utf-8")
    assert "parrots" in (c := open_corpus(text, tmp_path / "cache", 0.1)).tokenizer.decode(c.train)


def test_byte_order_mark_and_crlf_are_dropped(tmp_path):
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert "".join(read_text(path)) == "one\ntwo\n"


def test_not_utf8_is_refused(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        open_corpus(path, tmp_path / "cache", 0.1)


def test_a_wide_vocabulary_takes_wider_tokens(tmp_path):
    path = tmp_path / "wide.txt"
    path.write_text("".join(chr(0x4E00 + i) for i in range(3000)), encoding="utf-8")
    corpus = open_corpus(path, tmp_path / "cache", 0.1)
    assert corpus.train.dtype == np.uint16 and corpus.tokenizer.decode(corpus.train[-2:]) == chr(0x4E00 + 2698) + chr(
        0x4E00 + 2699
    )


def test_tokenizer_names_what_it_does_not_know():
    tokenizer = CharTokenizer("abc")
    assert tokenizer.encode("cab").tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="'x' 'z'"):
        tokenizer.encode("azxa")
    assert load_tokenizer(tokenizer.state()).decode([2, 1]) == "cb"
    with pytest.raises(ValueError, match="unknown tokenizer"):
        load_tokenizer({"kind": "os.system"})


def test_development_holds_out_the_end_of_the_training_part(tmp_path):
    options = {
        "num_chars": 4000,
        "text_seed": 1,
        "data_dir": str(tmp_path),
        "block_size": 16,
        "batch_size": 4,
        "seed": 1,
    }
    whole, cut = (PocketDataModule(**options, development=flag) for flag in (False, True))
    assert len(cut.corpus.val) == len(whole.corpus.val) == 400
    assert np.array_equal(np.concatenate((cut.corpus.train, cut.corpus.val)), whole.corpus.train)
    assert "tuning" in cut.notice


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_missing_text_is_downloaded_once_by_many(server, tmp_path):
    url, requests = server
    jobs = [("one/input.txt", str(tmp_path), url, digest(TEXT))] * 8
    with ProcessPoolExecutor(4) as pool:
        paths = list(pool.map(find_text, *zip(*jobs, strict=True)))
    assert {p.read_text() for p in paths} == {TEXT}
    assert len(requests) == 1
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"input.txt", "input.txt.lock"}


def test_a_wrong_download_leaves_nothing(server, tmp_path):
    with pytest.raises(ValueError, match="another text"):
        find_text("two/input.txt", str(tmp_path), server[0], digest("other"))
    assert [p.name for p in (tmp_path / "two").iterdir()] == ["input.txt.lock"]


def test_an_unreachable_download_names_the_ways_out(tmp_path):
    with pytest.raises(ValueError, match=r"MINIGPT_DATA_DIR.*data=pocket"):
        find_text("three/input.txt", str(tmp_path), "http://127.0.0.1:9/input.txt", digest(TEXT))


def test_a_found_text_is_checked(text, tmp_path):
    with pytest.raises(ValueError, match="not the expected text"):
        find_text(text.name, str(tmp_path), "http://127.0.0.1:9/", digest("other"))
    assert find_text(text.name, str(tmp_path), "http://127.0.0.1:9/", digest(TEXT)) == Path(text)


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 4), (3, 5), (4, 64)])
@pytest.mark.parametrize("length", [2, 16, 17, 18, 150])
def test_validation_predicts_every_token_once(world_size, batch_size, length):
    tokens = np.arange(length)
    streams = [
        ValidationStream(tokens, block_size=16, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    batches = [list(s) for s in streams]
    assert len({len(b) for b in batches}) == 1 and all(len(s) == len(b) for s, b in zip(streams, batches, strict=True))
    pairs = [
        (i, t)
        for share in batches
        for inputs, targets in share
        for i, t in zip(inputs.flatten().tolist(), targets.flatten().tolist(), strict=True)
        if t != IGNORED
    ]
    assert sorted(pairs) == [(i, i + 1) for i in range(length - 1)]


def test_the_play_is_made_from_its_seed():
    assert make_play(5000, 1) == make_play(5000, 1) != make_play(5000, 2)
    assert len(make_play(5000, 1)) == 5000
    assert digest(make_play(5000, 1)) == GOLDEN_PLAY, "a seed must name the same play in every version"


GOLDEN_PLAY = "32095f4ae3812b6e9f90b84803879d9fcd8bd2fdcf2e4ceb806aff6305d90870"


def test_pocket_text_needs_no_network(tmp_path):
    options = {"data_dir": str(tmp_path), "block_size": 8, "batch_size": 2, "seed": 1}
    module = PocketDataModule(num_chars=3000, text_seed=1, **options)
    assert len(module.corpus.train) == 2700
    assert module.find_text().read_text() == make_play(3000, 1)
