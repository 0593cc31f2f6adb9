"""What lies in a run directory is read as data of a known kind, or refused in one line."""

import contextlib
import os
import socket

import pytest

from minigpt.runs.directory import check_own_files, check_run_files, find_checkpoint, find_run
from minigpt.runs.ranking import rank_jobs
from minigpt.runs.resume import select_run
from minigpt.runs.run_files import check_written, read_metrics, truncate_metrics
from minigpt.runs.slurm import began_with
from minigpt.runs.summary import read_summary
from minigpt.runs.untrusted import MAX_DATA_BYTES, UntrustedFileError, check_plain, read_json, read_text, read_yaml


def put_pipe(path):
    os.mkfifo(path)


def put_folder(path):
    path.mkdir()


def put_socket(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # a socket's name has at most 108 bytes


def put_device(path):
    path.symlink_to("/dev/zero")


def put_dangling_link(path):
    path.symlink_to("nowhere")


PUTS = [put_pipe, put_folder, put_socket, put_device, put_dangling_link]


@pytest.mark.parametrize("put", PUTS)
def test_only_regular_files_are_opened(tmp_path, put):
    put(tmp_path / "file")
    for read in (read_text, read_json, read_yaml):
        with pytest.raises(UntrustedFileError, match="file is not a regular file"):
            read(tmp_path / "file")
    with pytest.raises(UntrustedFileError, match="none does not exist"):
        read_text(tmp_path / "none")


@pytest.mark.parametrize("put", PUTS)
@pytest.mark.parametrize(
    "name", ["config.yaml", "summary.json", "metrics.csv", ".samples.md", "train.log", ".hydra/x.yaml", "checkpoints/x"]
)
def test_a_run_directory_holds_files_where_it_writes_them(tmp_path, put, name):
    for folder in (".hydra", "checkpoints"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tensorboard").mkdir()
    check_run_files(tmp_path)
    put(tmp_path / name)
    for check in (check_run_files, check_own_files):
        with pytest.raises(ValueError, match=f"{name} is (not a regular file|a symbolic link)"):
            check(tmp_path)


@pytest.mark.parametrize("name", ["checkpoints", ".hydra"])
def test_a_file_in_a_folder_s_place_is_refused(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=f"{name} is not a directory"):
        check_own_files(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff", r"not UTF-8 \(byte 0\)"),
        (b"a\0", "NUL bytes"),
        (b"", "Expecting value"),
        (b"[]", "a value of type list instead of keys and values"),
        (b"null", "null instead"),
        (b"true", "True instead"),
        (b'{"a": ' + b"9" * 30 + b"}", "more than 64 bits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "more than 50 levels deep"),
        (b"[" * 10_000, "recursion"),
        (b" " * (MAX_DATA_BYTES + 1), "more than 262,144 bytes"),
    ],
    ids=str,
)
def test_json_is_an_object_of_bounded_size_and_depth(tmp_path, content, says):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UntrustedFileError, match=says):
        read_json(tmp_path / "file")


def test_shared_and_cyclic_values_end():
    cyclic: list = []
    cyclic.append(cyclic)
    many: list = [1, 2]
    for _ in range(40):
        many = [many, many]
    for value, says in ((cyclic, "levels deep"), (many, "more than 2,000,000 values"), ({1: 2}, "as a key")):
        with pytest.raises(UntrustedFileError, match=says):
            check_plain(value, "it")
    assert check_plain(one := {"a": [1, "x", 2.0, None, True]}, "it") is one


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"steps": "x"}', "steps is a value of type str instead of int"),
        ('{"steps": true}', "steps is True"),
        ('{"steps": null}', "steps is null"),
        ('{"wall_clock_s": NaN}', "wall_clock_s is nan"),
        ('{"wall_clock_s": 1e999}', "wall_clock_s is inf"),
        ('{"overrides": 5}', "overrides is a value of type int instead of list"),
        ('{"overrides": [5]}', "overrides is not a list of options"),
        ('{"wandb_id": []}', "wandb_id"),
        ("{half", "Expecting property name"),
    ],
)
def test_a_damaged_summary_is_refused_and_costs_no_ranking(tmp_path, content, says):
    for job, text in enumerate(('{"status": "completed", "val_bpc_best": 2.0, "overrides": ["seed=1"]}', content)):
        (tmp_path / str(job)).mkdir()
        (tmp_path / str(job) / "summary.json").write_text(text)
    with pytest.raises(UntrustedFileError, match=says):
        read_summary(tmp_path / "1")
    rows = rank_jobs(tmp_path)
    assert [row["job"] for row in rows] == [0, 1]
    assert rows[1]["status"] == "failed" and says.split()[0] in rows[1]["error"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n", "does not name the columns"),
        ("step,step\n1,2\n", "does not name the columns"),
        ("step," + "a," * 2000 + "\n1\n", "does not name the columns"),
        ("step,a\nx,2\n", "line 2 is not a record of a step"),
        ("step,a\n1,2\n1,2,3\n", "line 3 is not a record"),
        ("step,a\n1,2\n3\n", "line 3 is not a record"),
        ("step,a\n-1,2\n", "line 2 is not a record"),
        ("step,a\n" + "9" * 5000 + ",2\n", "line 2 is not a record"),
        ("step,a\n1," + "x" * 200_000 + "\n", "field larger than field limit"),
    ],
    ids=range(9),
)
def test_metrics_that_are_none_are_refused(tmp_path, content, says):
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(UntrustedFileError, match=says):
        check_written(tmp_path)


def test_metrics_of_a_run_that_was_cut_short_are_read(tmp_path):
    path = tmp_path / "metrics.csv"
    for content, records in (("", 0), ("ste", 0), ("step,a\n", 0), ("step,a\n1,2\n2,", 1), ("step,a\n1,\n2,3\n", 2)):
        path.write_text(content)
        check_written(tmp_path)
        assert len(list(read_metrics(path))) == records
    truncate_metrics(path, 1)
    assert path.read_text().split() == ["step,a", "1,"]


def test_samples_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "samples.md").write_bytes(b"\xff")
    with pytest.raises(UntrustedFileError, match=r"samples\.md is damaged: it is not UTF-8"):
        check_written(tmp_path)


def test_latest_is_the_newest_run_even_if_it_is_damaged(tmp_path):
    older, newer = (tmp_path / f"2026-01-0{day}_00-00-00_run-1" for day in (1, 2))
    for run in (older, newer):
        run.mkdir()
    (older / "config.yaml").write_text("")
    put_pipe(newer / "config.yaml")
    for find in (find_run, find_checkpoint):
        with pytest.raises(UntrustedFileError, match=r"02_00-00-00_run-1/config\.yaml is not a regular file"):
            find("latest", tmp_path)
    with pytest.raises(UntrustedFileError, match="not a regular file"):
        select_run("auto", None, tmp_path, [])


def test_a_best_checkpoint_that_is_no_file_is_not_replaced_by_another(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "checkpoints/best.ckpt").mkdir(parents=True)
    (tmp_path / "checkpoints/last.ckpt").write_text("")
    with pytest.raises(ValueError, match=r"best\.ckpt is not a regular file"):
        find_checkpoint(str(tmp_path), tmp_path)


def test_a_requeued_run_whose_options_are_damaged_is_not_begun_anew(tmp_path):
    assert not began_with(tmp_path, ["seed=1"])
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text("- [")
    with pytest.raises(UntrustedFileError, match=r"overrides\.yaml is damaged"):
        began_with(tmp_path, ["seed=1"])
