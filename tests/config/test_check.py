"""The checks, one by one: what they accept and what they say."""

import ast
import math

import pytest

from minigpt.config.annotations import mismatch
from minigpt.config.check import check_component, check_options
from minigpt.config.errors import ConfigError, did_you_mean, unknown_option
from minigpt.config.signature import Parameter, passed_arguments, read_signature

MODULE = """
from typing import Annotated, Any, Literal, Optional, Union
from collections.abc import Callable
import annotated_types
from annotated_types import Ge, Gt, Le, Lt
from fragile_bounds import Small as Little
from torch import Tensor
raise RuntimeError("imported")
Positive = Annotated[int, Ge(1)]
Mode = Literal["min", "max"]
Alias = Union[str, Positive]
Share: object = Annotated[float, Le(1.0)]
def build(a: int, share: Share): ...
class A:
    def __init__(self, a: int, *, b: Positive = 1): ...
class B(A):
    def __init__(self, c: float, **options): super().__init__(a=1, **options)
class C(B): ...
class Parent:
    def __init__(self, width: int, child: Callable[..., Any], late: Callable[..., Any]):
        self.child = child(dim=width, half=width // 2)
        self.late = late
    def later(self): return self.late(step=1)
class Kid(Parent): ...
"""


@pytest.fixture
def fragile(tmp_path, monkeypatch):
    """A module that cannot be imported, only read."""
    (tmp_path / "fragile.py").write_text(MODULE)
    (tmp_path / "fragile_bounds.py").write_text(
        "from annotated_types import *\nSmall = Annotated[float, Gt(0), Lt(2**3)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def fits(annotation: str, value: object) -> bool:
    return mismatch(Parameter(ast.parse(annotation, mode="eval").body, "fragile", True), value) is None


@pytest.mark.parametrize(
    ("annotation", "accepted", "refused"),
    [
        ("int", [1, 0], [1.5, "1", True, None, [1], 2**63]),
        ("float", [1, 1.5, 0.0, 1e19, 1e-37], ["1", True, None, math.nan, math.inf, -math.inf, 1e20, 1e-38, -1e300]),
        ("tuple[float, float]", [[0.9, 0.99]], [[0.9], [0.9, 0.9, 0.9], [0.9, "a"], [0.9, math.inf], 0.9]),
        ("tuple[int, ...]", [[1], [1, 2]], [1]),
        ("bool", [True], [1, "true", None]),
        ("str", ["a", ""], [1, None, True]),
        ("int | None", [1, None], ["a", 1.5]),
        ("Optional[float]", [1, None], ["a"]),
        ("Optional[Union[int, float]]", [1, 1.5, None], ["a", True]),
        ("float | Tensor", [1.0], ["a"]),
        ("list[str] | None", [["a"], None], ["a", 1, ["a", 1]]),
        ("list[Positive]", [[], [1, 2]], [[1, 0], ["a"], 1]),
        ("dict[str, int]", [{"a": 1}], [[1], 1]),
        ("Any", [1, "a", None], []),
        ("Positive", [1, 5], [0, -1, 1.5, True]),
        ("Positive | None", [1, None], [0, "a"]),
        ("Annotated[int, annotated_types.Ge(2), Le(3)]", [2, 3], [1, 4]),
        ("Annotated[float, Gt(0), Lt(1)]", [0.5], [0, 1, -1]),
        ("Little", [0.1, 7.9], [0, 8, "x"]),
        ("Alias", ["x", 1], [0, None]),
        ("Mode", ["min"], ["mean", 1, None]),
        ("Literal['a', 3] | None", ["a", 3, None], ["b", 4]),
        ("'Positive'", [1], [0]),
        ("Callable[..., Any]", [{"_target_": "x"}], [1, "a", None]),
        ("Callable[..., Any] | None", [{"_target_": "x"}, None], [1, "a"]),
        ("Callable", [{"_target_": "x"}], [1, "a", None]),
        ("Tensor", [{"_target_": "x"}], [1, "a", None]),
        ("Sequence[int]", [[1, 2], []], [1, ["a"]]),
        ("Unknown[int]", [1, "a", None], []),
    ],
)
def test_annotations(fragile, annotation, accepted, refused):
    assert [value for value in accepted if not fits(annotation, value)] == []
    assert [value for value in refused if fits(annotation, value)] == []


def test_no_annotation_accepts_anything():
    assert mismatch(Parameter(None, "fragile", True), "x") is None


def test_signatures_are_read_without_importing(fragile):
    assert {name: p.required for name, p in (read_signature("fragile.C") or {}).items()} == {"b": False, "c": True}, (
        "`a` is given by B itself"
    )
    assert read_signature("fragile.D") is None and read_signature("nowhere.D") is None


def test_what_a_parent_passes_is_read_too(fragile):
    assert passed_arguments("fragile.Kid", "child") == {"dim": "width", "half": "width // 2"}
    assert passed_arguments("fragile.Kid", "late") == {"step": "1"}
    assert passed_arguments("fragile.Kid", "other") == {} == passed_arguments("nowhere.X", "child")
    assert passed_arguments("fragile.build", "a") == {}


def test_every_option_is_held_against_the_signature(fragile):
    check_options("m.", {"a": 1, "b": 2}, "fragile.A", {})
    for options, says in (
        ({"a": 1, "x": 2}, "unknown option 'm.x'"),
        ({"a": 1, "b": 0}, "m.b=0 must be at least 1"),
        ({"b": 1}, "m.a must be given"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_options("m.", options, "fragile.A", {})
    check_options("m.", {"b": 1}, "fragile.A", {"a": "the parent"})
    with pytest.raises(ConfigError, match=r"m\.share=2\.0 must be at most 1$"):
        check_options("m.", {"a": 1, "share": 2.0}, "fragile.build", {})
    with pytest.raises(ConfigError, match=r"m\.a is given by the parent"):
        check_component("m", {"_target_": "fragile.A", "a": 1}, {"a": "the parent"})


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nowhere.X", "there is no nowhere.X"),
        ("", "there is no"),
        ("fragile.Aa", "there is no 'Aa' in fragile"),
        (3, "dotted"),
    ],
)
def test_a_target_that_does_not_exist_is_refused(fragile, target, says):
    with pytest.raises(ConfigError, match=says):
        check_component("m", {"_target_": target}, {})


@pytest.mark.parametrize("target", ["itertools.count", "os.path.join", "torch.cat"])
def test_a_target_without_source_is_left_to_hydra(target):
    check_component("m", {"_target_": target, "any": 1}, {})


def test_suggestions():
    assert did_you_mean("adma", ["adamw", "muon"]) == "; did you mean 'adamw'?"
    assert did_you_mean("xyz", ["adamw", "muon", "_target_"]) == "; there is: adamw, muon"
    assert did_you_mean("xyz", []) == ""


def test_an_option_is_suggested_where_it_stands_deeper():
    config = {"seed": 1, "optimizer": {"lr": 1}, "data": {"tokenizer": {"lr": 1}}}
    assert unknown_option("lr", config, config=config).endswith("did you mean 'optimizer.lr'?")
    assert unknown_option("sed", config, config=config).endswith("did you mean 'seed'?")
    assert "resume=RUN_DIR" in unknown_option("ckpt_path", config, config=config | {"model": {}})
