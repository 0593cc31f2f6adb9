"""What is said of a failure, and to whom it is left."""

import errno

import pytest
import torch

from minigpt.runs.run import Run
from minigpt.training.fit import first_line, known_failure, report_failure


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (FloatingPointError("the gradient norm is nan"), "the gradient norm is nan"),
        (OSError(errno.ENOSPC, "No space left", "a.ckpt"), "a.ckpt: No space left; earlier checkpoints are intact"),
        (OSError("broken"), "here: broken; earlier checkpoints are intact"),
        (torch.OutOfMemoryError("x"), "out of memory: lower data.batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "out of memory: lower data.batch_size"),
        (RuntimeError("a fault of the program"), None),
    ],
)
def test_what_is_no_fault_of_the_program_is_one_line(failure, says, capsys):
    run = Run("here", {})
    advice = known_failure(failure, run)
    assert advice is None if says is None else advice.startswith(says)
    try:
        raise failure
    except Exception as caught:
        report_failure(caught, run)
    shown = capsys.readouterr().err
    assert shown == f"error: {advice}\n" if says is not None else "a fault of the program" in shown


@pytest.mark.parametrize(
    ("failure", "line"),
    [(ValueError("one\ntwo"), "ValueError: one"), (KeyError(), "KeyError: "), (OSError("x"), "OSError: x")],
)
def test_a_summary_has_the_first_line_of_an_error(failure, line):
    assert first_line(failure) == line
