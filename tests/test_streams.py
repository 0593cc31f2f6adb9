"""Standard streams whose reader has gone."""

import os
import subprocess
import sys
from pathlib import Path

from minigpt.streams import Output, guard

SRC = Path(__file__).parents[1] / "src"


def test_a_closed_pipe_drops_what_is_written_and_is_noticed():
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        output = Output(stream)
        print("read", file=output, flush=True)
        assert os.read(reader, 10) == b"read\n" and not output.is_broken_pipe
        os.close(reader)
        print("lost", file=output, flush=True)
        assert output.is_broken_pipe
        print("lost too", file=output, flush=True)
    assert guard(output) is output


def test_a_full_disk_is_not_a_closed_pipe():
    with Path("/dev/full").open("w") as stream:
        output = Output(stream)
        print("lost", file=output, flush=True)
        assert not output.is_broken_pipe


def test_closed_streams_are_no_error_and_leave_their_numbers_to_no_file():
    command = f"{sys.executable} {SRC}/train.py model.dim=0"
    for closed in ("2>&-", ">&- 2>&1", "2>/dev/full"):
        assert subprocess.run(f"{command} {closed}", shell=True, check=False).returncode == 2
    code = "from minigpt.streams import guard; print(guard(None).fileno(), file=__import__('sys').stderr)"
    done = subprocess.run(
        f'{sys.executable} -c "{code}" >&-', shell=True, cwd=SRC, stderr=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout is None and done.stderr == "1\n"
