"""Commands that are suggested: what a shell makes of them."""

import shlex

import pytest

from minigpt.runs.commands import evaluate_command, generate_command, resume_command


@pytest.mark.parametrize(
    ("prompt", "typed"),
    [
        ("First Citizen:", "First Citizen:"),
        ("It's $5; `ls`", "It's $5; `ls`"),
        ('"Hello"', "Hello"),
        ("a\x1b[31m\nb\x07", "a[31mb"),
        ("", None),
        (None, None),
    ],
)
def test_an_example_prompt_is_quoted_for_a_shell(prompt, typed):
    command = shlex.split(generate_command("logs/my run", prompt))
    assert command == ["python", "src/generate.py", "run=logs/my run", *([] if typed is None else [f"prompt={typed}"])]


def test_a_run_s_directory_is_quoted_too():
    assert shlex.split(evaluate_command("a b"))[-1] == "run=a b"
    assert resume_command("a", 40) == "python src/train.py resume=a trainer.max_steps=40"
