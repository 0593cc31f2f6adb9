"""The house rules of docs/design.md that a machine can check."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
PACKAGE = SRC / "minigpt"
# What each part of the house may import of the house, and of the outside world's heavy libraries.
MAY_IMPORT = {
    "model": ({"model"}, {"torch"}),
    "data": ({"data"}, {"torch", "numpy", "lightning", "filelock", "tokenizers"}),
    "inference": ({"inference", "data", "model", "runs"}, {"torch", "safetensors"}),
    "training": (
        {"training", "inference", "data", "model", "runs"},
        {"torch", "numpy", "lightning", "torchmetrics", "wandb", "rich"},
    ),
    "runs": ({"runs"}, {"torch", "lightning", "yaml"}),
    "config": ({"config", "runs", "data"}, {"hydra", "omegaconf", "rich", "yaml"}),
}
HEAVY = {
    "numpy",
    "torch",
    "lightning",
    "torchmetrics",
    "wandb",
    "hydra",
    "omegaconf",
    "rich",
    "filelock",
    "yaml",
    "transformers",
    "safetensors",
    "tokenizers",
}
FILES = sorted(f for f in SRC.rglob("*.py"))


def imports(file: Path) -> set[str]:
    """The dotted names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_part_of_the_house_has_its_rule():
    assert {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"} == set(MAY_IMPORT)


@pytest.mark.parametrize("file", [f for f in FILES if PACKAGE in f.parents and f.parent != PACKAGE], ids=str)
def test_imports_go_one_way(file):
    part = file.relative_to(PACKAGE).parts[0]
    house, outside = MAY_IMPORT[part]
    for name in imports(file):
        top, *rest = name.split(".")
        if top == "minigpt" and rest[0] != "STARTED":
            assert rest[0] in house, f"{part} must not import {name}"
            if part == "config" and rest[0] == "data":
                assert rest[1] == "corpus", "config looks at texts alone"
        elif top in HEAVY:
            assert top in outside, f"{part} must not import {name}"


def test_a_command_line_is_checked_without_the_heavy_libraries():
    import subprocess
    import sys

    code = "import minigpt.config.door, minigpt.data.corpus, sys; heavy = 'torch', 'lightning', 'wandb', 'tokenizers'"
    code += "; print([m for m in heavy if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SRC, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_shadows_the_standard_library():
    import sys

    top = {p.stem for p in SRC.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert not top & set(sys.stdlib_module_names)


@pytest.mark.parametrize("door", ["train", "evaluate", "generate", "export"])
def test_doors_hold_no_logic(door):
    tree = ast.parse((SRC / f"{door}.py").read_text())
    assert len((SRC / f"{door}.py").read_text().splitlines()) <= 45, "readable in one screen"
    (main,) = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    assert not [n for n in ast.walk(main) if isinstance(n, ast.If | ast.For | ast.While | ast.Try)]
    assert not any(isinstance(n, ast.Import) for n in tree.body), "heavy imports belong into main"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_public_names_have_docstrings(file):
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree), "the module"
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_") and node.name != "main":
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("file", FILES, ids=str)
def test_nothing_is_loaded_or_run_unsafely(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "os.system", "yaml.load")
            if name == "torch.load":
                assert "weights_only=True" in ast.unparse(node)
