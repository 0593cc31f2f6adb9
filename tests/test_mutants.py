"""Mutation testing: the bugs it makes, and that its lists are of today's source."""

import pytest
import yaml
from benchmarks.mutants.generate import HERE, all_mutants, explanations, mutants_of, named_mutants, sample

SOURCE = '''"""Not "mutated"."""
import torch

LIMIT = 8  # tokens


class Example:
    """Text."""

    @property
    def half(self) -> "Annotated[int, 3]":
        """Text."""
        return self.size / 2

    @torch.no_grad()
    def clip(self, x: float, low: float = 0.5, flag: bool = True) -> bool:
        assert x > 0, "positive"
        log.info("x is %d", 3)
        if x > LIMIT and flag:
            raise ValueError(f"more than {LIMIT + 1}")
        self.size = max(low, x)
        return not self.size == x[-1]
'''


def changes(operator):
    """The lines that the mutants of an operator change."""
    before = SOURCE.splitlines()
    found = [m for m in mutants_of("model/example.py", SOURCE.encode()) if m.id.split(":")[2] == operator]
    changed = [[(a, b) for a, b in zip(before, m.source.splitlines(), strict=True) if a != b] for m in found]
    return [b.strip() for ((_, b),) in changed]


@pytest.mark.parametrize(
    ("operator", "lines"),
    [
        ("comparison", ["if x >= LIMIT and flag:", "return not self.size != x[-1]"]),
        ("and/or", ["if x > LIMIT or flag:"]),
        ("arithmetic", ["return self.size * 2"]),
        ("condition", ["if (not (x > LIMIT and flag)):"]),
        ("function", ["self.size = min(low, x)"]),
        ("argument", ["self.size = max(low)"]),
        ("decorator", [""]),
        ("statement", ["pass", "pass"]),
        ("sign", ["return (self.size == x[-1])"]),
        ("return value", ["return None", "return (not (not self.size == x[-1]))"]),
        ("flag", ["def clip(self, x: float, low: float = 0.5, flag: bool = False) -> bool:"]),
        ("negated", ["LIMIT = (-8)  # tokens", "return self.size / (-2)"]),
    ],
)
def test_an_operator_changes_what_runs_and_nothing_else(operator, lines):
    found = changes(operator)
    if operator == "negated":
        found = [line for line in found if "low" not in line]
    assert found == lines


def test_ids_do_not_depend_on_other_lines():
    moved = SOURCE.replace("LIMIT = 8", "\n\nLIMIT = 8\n\n\ndef other(x):\n    return x + 1\n")
    before, after = ({m.id for m in mutants_of("model/example.py", s.encode())} for s in (SOURCE, moved))
    assert before < after and all(":other:" in name for name in after - before)


def test_the_lists_are_of_todays_source():
    every, named = list(all_mutants()), named_mutants()
    ids = {m.id for m in every}
    assert len(ids) == len(every) > 5000 and len(named) == len(yaml.safe_load((HERE / "named.yaml").read_text())) == 11
    chosen = sample(every, 30, seed=0)
    assert len(chosen) == 180 and sample([m for m in every if m not in chosen[:3]], 30, seed=0)[:27] == chosen[3:30]
    assert explanations().keys() <= ids, "take it off the list"
    assert all(len(reason) > 20 for reason in explanations().values())
