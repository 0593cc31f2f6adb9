"""Texts and paths on the command line: what is typed is what is read."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from minigpt.config.schema import COMMANDS, PATHS, TEXTS, Paths
from minigpt.config.text_options import quote_text_options


def read(override: str) -> object:
    """The value that Hydra and OmegaConf make of an override."""
    value = OverridesParser.create().parse_override(override).value()
    return OmegaConf.to_container(OmegaConf.create({"x": value}), resolve=True)["x"]


def typed(text: str, option: str = "prompt", multirun: bool = False) -> object:
    (override,) = quote_text_options([f"{option}={text}"], multirun)
    return read(override)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Who's there?",
            "To be, or not to be",
            "é",
            "123",
            "1e3",
            "a=b",
            "[x]",
            "ROMEO: {",
            "$5",
            "#1",
            "null",
            "true",
        ),
        *(
            "\\n",
            " a ",
            "a\nb",
            "-",
            "'Tis",
            "'a' 'b'",
            '"a" she said',
            "a\\",
            "\\'",
            "${seed}",
            "a\\${b}",
            "choice(a,b)",
        ),
        *("", "\t", "a\\, b", "~", "~/x", "0x10", "tag(a)", "(", "%", "日本語", "😀"),
    ],
)
def test_a_prompt_is_taken_as_it_is_typed(text):
    assert typed(text) == text


SPECIAL = st.one_of(st.sampled_from("'\"\\${}[](),=: \n#~a1é"), st.characters(codec="utf-8", exclude_characters="\0"))


@settings(max_examples=60, deadline=None)
@given(
    st.text(SPECIAL, max_size=10).filter(
        lambda text: text != "???" and not re.fullmatch(r"""(['"]).*\1""", text, re.DOTALL)
    )
)
def test_any_prompt_is_taken_as_it_is_typed(text):
    assert typed(text) == text


@pytest.mark.parametrize(
    ("quoted", "text"), [("'a, b'", "a, b"), ('"Who\'s there?"', "Who's there?"), (r"'it\'s'", "it's")]
)
def test_a_value_that_is_quoted_for_hydra_is_what_it_quotes(quoted, text):
    assert typed(quoted) == text
    (once,) = quote_text_options([f"prompt={quoted}"])
    assert quote_text_options([once]) == [once], "the processes of further devices and sweeps read it again"


def test_paths_and_names_keep_null_interpolation_and_home():
    assert typed("null", "resume") is None
    assert quote_text_options(["paths.log_dir=${oc.env:HOME}/logs"]) == ["paths.log_dir=${oc.env:HOME}/logs"]
    assert typed("~/a, b (1).txt", "data.path") == str(Path.home() / "a, b (1).txt")
    assert typed("2026", "run") == "2026" == typed("2026", "+name"[1:])
    assert typed("~", "stop") == "~"


def test_a_stop_string_may_be_a_list_in_hydra_s_grammar():
    assert typed('["ROMEO:", JULIET:]', "stop") == ["ROMEO:", "JULIET:"]
    assert typed(".", "stop") == "." and typed("\n\n", "stop") == "\n\n" and typed("[stage", "stop") == "[stage"
    assert typed('["\n\n"]', "stop") == ["\n\n"] and typed("'[a]'", "stop") == "[a]" and typed("null", "stop") is None
    assert typed("[a,b]", "run") == "[a,b]", "a path, which evaluate.py divides itself"


def test_other_options_keep_hydra_s_grammar():
    others = ["model.dim=128", "tags=[a,b]", "+data.val_fraction=0.2", "model=nano", "~callbacks", "optimizer.lr=1e-3"]
    assert quote_text_options(others) == others


def test_a_sweep_over_prompts_is_one_and_the_rest_is_quoted():
    assert quote_text_options(["prompt=a,b"], multirun=True) == ["prompt=a,b"]
    assert typed("Who's there?", multirun=True) == "Who's there?"
    assert typed("123", multirun=True) == "123"


def test_every_text_of_a_command_is_known():
    fields = [get_type_hints(c) for c in COMMANDS.values()]
    own = {
        name for hints in fields for name, kind in hints.items() if kind in (str, str | None, str | list[str] | None)
    }
    own |= {f"paths.{name}" for name in get_type_hints(Paths)}
    assert own <= TEXTS | PATHS
    assert {name for name in TEXTS | PATHS if "." not in name} <= {name for hints in fields for name in hints}
