"""A checkpoint with a valid checksum may hold anything: only dense tensors that its file has the bytes for."""

import io
import zipfile

import pytest
import torch

from minigpt.runs.checkpoint_content import check_tensors, check_weights
from minigpt.runs.checkpoint_io import append_checksum, is_valid, load_checkpoint, write


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(2**20, 2**20),
        torch.zeros(2).as_strided((100,), (0,)),
        torch.empty(2, device="meta"),
        torch.zeros(3, 3).to_sparse(),
    ],
    ids=["expanded", "overlapping", "meta", "sparse"],
)
def test_a_tensor_without_data_of_its_own_is_refused(tmp_path, tensor):
    write({"state": [{"x": tensor}]}, tmp_path / "x.ckpt")
    assert is_valid(tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt is damaged: it has a tensor"):
        load_checkpoint(tmp_path / "x.ckpt")


def test_views_and_shared_tensors_are_loaded(tmp_path):
    matrix = torch.arange(6.0).view(2, 3)
    write({"a": matrix, "b": matrix, "c": matrix.T, "d": matrix[0], "e": torch.tensor(1)}, tmp_path / "x.ckpt")
    loaded = load_checkpoint(tmp_path / "x.ckpt")
    assert torch.equal(loaded["c"], matrix.T) and loaded["a"].data_ptr() == loaded["b"].data_ptr()


def test_more_data_than_the_file_has_is_refused():
    check_tensors([torch.zeros(100)], 400, "it")
    with pytest.raises(ValueError, match="larger than its data"):
        check_tensors([torch.zeros(100), torch.zeros(100)], 700, "it")
    with pytest.raises(ValueError, match="levels deep"):
        check_tensors(nested(100), 1, "it")


def nested(depth):
    """A list in a list in a list."""
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def test_an_archive_whose_records_overlap_is_refused(tmp_path):
    write({"x": torch.zeros(1000)}, tmp_path / "x.ckpt")
    with zipfile.ZipFile(tmp_path / "x.ckpt") as archive:
        record = next(r for r in archive.infolist() if r.file_size == 4000)
    content = (tmp_path / "x.ckpt").read_bytes()
    size = (4000).to_bytes(4, "little")
    directory = content.rindex(b"PK\x01\x02", 0, content.rindex(record.filename.encode()))
    entry = content[directory : directory + 46].replace(size, (2**31).to_bytes(4, "little"))
    file = io.BytesIO(content[:directory] + entry + content[directory + 46 : -66] + b"\0\0")
    (tmp_path / "y.ckpt").write_bytes(file.getvalue())
    with (tmp_path / "y.ckpt").open("r+b") as sealed:
        append_checksum(sealed)
    assert is_valid(tmp_path / "y.ckpt")
    with pytest.raises(ValueError, match="is not a checkpoint of miniGPT"):
        load_checkpoint(tmp_path / "y.ckpt")


def test_a_sparse_file_is_not_hashed(tmp_path):
    with (tmp_path / "x.ckpt").open("wb") as file:
        file.truncate(1 << 40)
    assert not is_valid(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"b": None}, "not a mapping of names to tensors"),
        ({"c": torch.zeros(1)}, "1 weights belong to no part of the model, the first is c"),
        ({"a": torch.zeros(3, 2)}, r"the weight a has the shape \[3, 2\], and the model's \[2, 3\]"),
        ({"a": torch.zeros(2, 3, dtype=torch.int32)}, "the weight a has the type torch.int32"),
        ({"a": torch.full((2, 3), torch.nan)}, "a has elements that are not finite"),
        ({"b": torch.tensor([torch.inf])}, "b has elements that are not finite"),
    ],
)
def test_weights_are_those_of_the_model(change, says):
    expected = {"a": torch.empty(2, 3, device="meta"), "b": torch.empty(1)}
    weights = {"a": torch.zeros(2, 3, dtype=torch.bfloat16), "b": torch.ones(1)}
    check_weights(weights, expected)
    with pytest.raises(ValueError, match=says):
        check_weights(weights | change, expected)
    with pytest.raises(ValueError, match="1 weights are missing, the first is b"):
        check_weights({"a": weights["a"]}, expected)
