"""Files that are written whole, with the permissions that the umask gives."""

import os

import pytest

from minigpt.atomic_file import atomic_write


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_has_the_permissions_of_the_umask(tmp_path, umask):
    target = tmp_path / "a.txt"
    for text in ("one", "two"):
        with atomic_write(target) as temporary:
            private = tmp_path / "private"  # as a library may write it
            private.touch(mode=0o600)
            private.write_text(text)
            private.replace(temporary)
        assert target.read_text() == text and target.stat().st_mode & 0o777 == 0o666 & ~umask
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(target) as temporary:
        temporary.rename(tmp_path / "moved").unlink()
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
