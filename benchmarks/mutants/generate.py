"""All mutants of the source, and a sample of them that hardly changes when the source does."""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from benchmarks.mutants.operators import Operators, Position, children

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = ("model", "data", "training", "inference", "runs", "config")


@dataclass(frozen=True)
class Mutant:
    """One deliberate bug.

    Attributes:
        id: module, function, operator and its number within the function: the same when other lines change.
        file: relative to src/minigpt.
        source: the text of the file with the bug.
    """

    id: str
    file: str
    source: str

    @property
    def package(self) -> str:
        """The package of minigpt that has the bug."""
        return self.file.split("/")[0]

    def diff(self, root: Path = ROOT) -> str:
        """The lines that differ."""
        before = (root / "src/minigpt" / self.file).read_text().splitlines()
        lines = list(unified_diff(before, self.source.splitlines(), lineterm="", n=0))[2:]
        return "\n".join(lines)


def all_mutants(root: Path = ROOT) -> Iterator[Mutant]:
    """Every mutant that the operators can make of the packages."""
    for package in PACKAGES:
        for path in sorted((root / "src/minigpt" / package).rglob("*.py")):
            file = str(path.relative_to(root / "src/minigpt"))
            yield from mutants_of(file, path.read_bytes())


def mutants_of(file: str, source: bytes) -> Iterator[Mutant]:
    """The mutants of one file."""
    operators, counts, seen = Operators(source), Counter[str](), {source}
    module = file.removesuffix(".py").replace("/", ".")
    for scope, node in scoped(ast.parse(source), ""):
        for operator, first, last, text in operators.mutations(node):
            name = f"{module}:{scope or '-'}:{operator}"
            counts[name] += 1
            changed = replaced(operators.lines, first, last, text)
            if changed not in seen:
                seen.add(changed)
                yield Mutant(f"{name}:{counts[name]}", file, changed.decode())


def scoped(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.AST]]:
    """Each node in the order of the text, with the dotted name of the function or class that it is in."""
    for child in children(node):
        inner = scope
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{scope}.{child.name}".lstrip(".")
        yield inner, child
        yield from scoped(child, inner)


def replaced(lines: list[bytes], first: Position, last: Position, text: str) -> bytes:
    """A source with other text between two positions."""
    (a, b), (c, d) = first, last
    return b"".join([*lines[: a - 1], lines[a - 1][:b], text.encode(), lines[c - 1][d:], *lines[c:]])


def is_valid(source: str) -> bool:
    """Whether a text is Python."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def sample(mutants: list[Mutant], per_package: int, seed: int) -> list[Mutant]:
    """As many of each package, those with the lowest hash of seed and id: a new mutant displaces at most one other."""

    def rank(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed} {mutant.id}".encode()).digest()

    found = []
    for package in PACKAGES:
        ranked = sorted((m for m in mutants if m.package == package), key=rank)
        found += islice((m for m in ranked if is_valid(m.source)), per_package)
    return found


def named_mutants(root: Path = ROOT) -> list[Mutant]:
    """The bugs of named.yaml: those that once passed every test.

    Raises:
        ValueError: the text that one of them replaces is not there, or several times.
    """
    found = []
    for name, bug in yaml.safe_load((HERE / "named.yaml").read_text()).items():
        source = (root / "src/minigpt" / bug["file"]).read_text()
        if source.count(bug["old"]) != 1:
            raise ValueError(f"benchmarks/mutants/named.yaml: {name}: its text must be in {bug['file']} once")
        found.append(Mutant(name, bug["file"], source.replace(bug["old"], bug["new"])))
    return found


def explanations() -> dict[str, str]:
    """Why a mutant changes no behaviour, by its id."""
    found: dict[str, Any] = yaml.safe_load((HERE / "equivalent.yaml").read_text()) or {}
    return found
