"""Text files: locating, downloading, reading and splitting."""

import gc
import hashlib
import http.server
import math
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from minigpt.data import text_files
from minigpt.data.text_files import downloaded_path, iter_text, locate, locate_or_download, split_text

TEXT = "Hear me, you wrangling pirates!\n" * 40


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves TEXT after a moment, and misbehaves at other paths than /input.txt."""

    def do_GET(self):
        self.server.requests.append(self.path)
        threading.Event().wait(0.2)
        if "silent" in self.path:
            self.server.released.wait(20)
            return
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(len(TEXT) + ("truncated" in self.path)))
        self.end_headers()
        self.wfile.write(TEXT.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A web server that counts its requests; returns its address and the list of requested paths."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests, httpd.released = [], threading.Event()
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", httpd.requests
        httpd.released.set()
        httpd.shutdown()


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_missing_text_is_downloaded_once_by_several_processes(server, tmp_path):
    url, requests = server
    jobs = [(f"{url}/one/input.txt", str(tmp_path), digest(TEXT))] * 8
    with ProcessPoolExecutor(4) as pool:
        paths = list(pool.map(locate_or_download, *zip(*jobs, strict=True)))
    assert {p.read_text() for p in paths} == {TEXT}
    assert requests == ["/one/input.txt"]
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"input.txt", "input.txt.lock"}


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_download_shows_progress_on_a_terminal_only(server, tmp_path, monkeypatch, capsys, is_terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    locate_or_download(f"{server[0]}/input.txt", str(tmp_path), digest(TEXT))
    output = capsys.readouterr()
    assert output.out == "" and ("100%" in output.err) == is_terminal and bool(output.err) == is_terminal


def test_a_download_with_another_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(ValueError, match="another text"):
        locate_or_download(f"{server[0]}/two/input.txt", str(tmp_path), digest("other"))
    assert [p.name for p in (tmp_path / "two").iterdir()] == ["input.txt.lock"]


# pooch leaves the connection of a failed download to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("path", "reason"),
    [("missing", "404 Client Error"), ("truncated", "IncompleteRead"), ("silent", "timed out")],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(server, tmp_path, monkeypatch, path, reason):
    monkeypatch.setattr(text_files, "DOWNLOAD_TIMEOUT_S", 0.5)
    with pytest.raises(ValueError, match=rf"could not be downloaded \(.*{reason}") as failure:
        locate_or_download(f"{server[0]}/{path}/two/input.txt", str(tmp_path))
    assert "\n" not in str(failure.value)
    del failure
    gc.collect()
    assert [p.name for p in (tmp_path / "two").iterdir()] == ["input.txt.lock"]


def test_an_unreachable_server_is_reported_with_the_alternatives(tmp_path):
    with pytest.raises(ValueError, match=r"\(.*Connection refused\).*MINIGPT_DATA_DIR.*data=synthetic"):
        locate_or_download("http://127.0.0.1:9/three/input.txt", str(tmp_path), digest(TEXT))


def test_a_download_waits_ten_seconds():
    assert text_files.DOWNLOAD_TIMEOUT_S == 10


def test_a_file_that_exists_is_checked(text, tmp_path):
    with pytest.raises(ValueError, match="not the expected text"):
        locate_or_download(f"http://127.0.0.1:9/{text.name}", str(tmp_path), digest("other"))
    assert locate_or_download(f"http://127.0.0.1:9/{text.name}", str(tmp_path), digest(TEXT)) == Path(text)


def test_a_text_of_one_s_own_is_looked_for_here_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "folder").mkdir(parents=True)
    for place in ("text.txt", "data/text.txt", "data/other.txt"):
        (tmp_path / place).write_text(place)
    assert [locate(name, "data").read_text() for name in ("text.txt", "other.txt")] == ["text.txt", "data/other.txt"]
    with pytest.raises(ValueError, match=r"no text at folder, which is not a file: .* eval_text=FILE"):
        locate("folder", "data", "eval_text")


def test_a_download_is_named_after_its_address():
    assert downloaded_path("https://a.org/x/data/tiny/input.txt?raw=1") == "tiny/input.txt"
    assert downloaded_path("https://a.org/x/../input.txt") == "x/input.txt"
    with pytest.raises(ValueError, match="not the address of a file"):
        downloaded_path("https://a.org/")


def test_byte_order_mark_and_crlf_are_dropped(tmp_path):
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert "".join(iter_text(path)) == "one\ntwo\n"


@pytest.mark.parametrize(("length", "fraction", "val"), [(1_115_394, 0.1, 111_540), (1000, 0.1, 100), (11, 0.1, 2)])
def test_the_validation_split_is_rounded_up(tmp_path, length, fraction, val):
    """The training split is floor((1 - val_fraction) * length), as in other work on Tiny Shakespeare."""
    path = tmp_path / "text.txt"
    path.write_text("ab" * (length // 2) + "c" * (length % 2))
    split = split_text(path, fraction)
    assert split.val_characters == math.ceil(length * fraction) == val == length - int(length * (1 - fraction))
    assert split.train_characters + split.val_characters == length
    assert split.characters == set("abc" if length % 2 else "ab")


def test_an_empty_text_is_refused(tmp_path):
    path = tmp_path / "text.txt"
    path.touch()
    with pytest.raises(ValueError, match="is empty"):
        split_text(path, 0.1)
