"""The checks, one by one: what they let through and what they say."""

import pytest

from minigpt.config.checks import RANGES, check_part, check_value
from minigpt.config.errors import ConfigError, did_you_mean
from minigpt.config.signature import accepts, read_signature


@pytest.mark.parametrize(
    ("annotation", "fits", "does_not"),
    [
        ("int", [1, 0], [1.5, "1", True, None, [1]]),
        ("float", [1, 1.5], ["1", True, None]),
        ("bool", [True], [1, "true", None]),
        ("str", ["a", ""], [1, None, True]),
        ("int | None", [1, None], ["a", 1.5]),
        ("Optional[float]", [1, None], ["a"]),
        ("Optional[Union[int, float]]", [1, 1.5, None], ["a", True]),
        ("float | Tensor", [1.0], ["a"]),
        ("list[str] | None", [["a"], None], ["a", 1]),
        ("Callable[..., Any]", [1, "a", None], []),
        ("", [1, "a", None], []),
    ],
)
def test_types(annotation, fits, does_not):
    assert all(accepts(annotation, value) for value in fits)
    assert not any(accepts(annotation, value) for value in does_not)


@pytest.mark.parametrize("name", RANGES)
def test_ranges_refuse_what_is_below(name):
    low, high, exclusive = RANGES[name]
    with pytest.raises(ConfigError, match=name):
        check_value(f"a.{name}", low if exclusive else low - 1)
    check_value(f"a.{name}", low + 1e-9 if exclusive else low)
    if high < 1e8:
        with pytest.raises(ConfigError):
            check_value(f"a.{name}", high + 1e-3)


@pytest.mark.parametrize(
    "target", ["os.system", "builtins.eval", "torch.load", "torch.hub.load", "minigpt.model.kv_cache.KVCache", ""]
)
def test_only_packaged_targets_are_built(target):
    with pytest.raises(ConfigError, match="is not built by any file"):
        check_part("model", {"_target_": target})


def test_suggestions():
    assert did_you_mean("adma", ["adamw", "muon"]) == "; did you mean 'adamw'?"
    assert did_you_mean("xyz", ["adamw", "muon", "_target_"]) == "; there is: adamw, muon"
    assert did_you_mean("xyz", []) == ""


def test_signatures_are_read_without_importing(tmp_path, monkeypatch):
    (tmp_path / "fragile.py").write_text(
        "raise RuntimeError('imported')\nclass A:\n    def __init__(self, a: int, *, b: str = ''): ...\n"
        "class B(A):\n    def __init__(self, c: float, **options): super().__init__(**options)\nclass C(B): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert read_signature("fragile.C") == {"a": "int", "b": "str", "c": "float"}
    assert read_signature("fragile.D") is None and read_signature("nowhere.D") is None
