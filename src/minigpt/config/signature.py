"""The parameters of a `_target_`, read from its source without importing it.

Importing torch and Lightning takes seconds, and a misspelt option should be reported at once. So the source is parsed:
names and annotations of a constructor, those of its base class for `**options`, and what a constructor passes itself to
a component that it receives. Nothing here knows a component by name.
"""

import ast
import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minigpt.config.schema import PASSED


@dataclass(frozen=True)
class Parameter:
    """One parameter of a constructor or function, or one field of a dataclass.

    Attributes:
        annotation: as written; None when there is none.
        module: the module whose names the annotation uses.
        required: whether it has no default.
    """

    annotation: ast.expr | None
    module: str
    required: bool


Signature = dict[str, Parameter]
Definition = ast.ClassDef | ast.FunctionDef


@functools.cache
def read_signature(target: str) -> Signature | None:
    """The signature of a class or function; None when its source cannot be found."""
    found = find_definition(target)
    if found is None:
        return None
    module, node = found
    if isinstance(node, ast.FunctionDef):
        return read_parameters(module, node.args)
    parameters, given = read_constructor(module, node)
    return {name: parameter for name, parameter in parameters.items() if name not in given}


def read_constructor(module: str, node: ast.ClassDef) -> tuple[Signature, set[str]]:
    """The parameters of a class and, for `**options`, of its bases; and those that a class gives its base itself."""
    init = find_init(node)
    parameters: Signature = {}
    given: set[str] = set()
    for base in node.bases if init is None or init.args.kwarg is not None else ():
        found = find_definition(resolve(module, ast.unparse(base)))
        if found is not None and isinstance(found[1], ast.ClassDef):
            inherited = read_constructor(found[0], found[1])
            parameters, given = parameters | inherited[0], given | inherited[1]
    if init is not None:
        own = read_parameters(module, init.args)
        given = (given | passed_to("super().__init__", init).keys()) - own.keys()
    elif any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
        own = {ast.unparse(f.target): Parameter(f.annotation, module, f.value is None) for f in fields}
    else:
        own = {}
    return parameters | own, given


def read_parameters(module: str, arguments: ast.arguments) -> Signature:
    """The parameters of one function, without `self`."""
    positional = [*arguments.posonlyargs, *arguments.args]
    num_required = len(positional) - len(arguments.defaults)
    required = {a.arg: index < num_required for index, a in enumerate(positional)}
    required |= {a.arg: d is None for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)}
    every = [a for a in (*positional, *arguments.kwonlyargs) if a.arg != "self"]
    return {a.arg: Parameter(a.annotation, module, required[a.arg]) for a in every}


def given_arguments(path: str, targets: Mapping[str, str]) -> dict[str, str]:
    """The arguments of the component at `path` that whoever builds it passes, and the options that those come from.

    Args:
        path: where the component stands in the configuration.
        targets: the `_target_` of every component, by its path.
    """
    group, _, name = path.rpartition(".")
    if group in targets:
        return {key: f"{group}.{value}" for key, value in passed_arguments(targets[group], name).items()}
    return PASSED.get(group or path, {})


@functools.cache
def passed_arguments(target: str, component: str) -> dict[str, str]:
    """The keyword arguments that a class passes to a component that it receives as the parameter `component`.

    For `mlp(dim=dim)` in the class or one of its bases: {"dim": "dim"}, each argument with its expression.
    """
    found = find_definition(target)
    if found is None:
        return {}
    module, node = found
    if isinstance(node, ast.FunctionDef):
        return {}
    passed: dict[str, str] = {}
    for base in node.bases:
        passed |= passed_arguments(resolve(module, ast.unparse(base)), component)
    return passed | passed_to(component, node) | passed_to(f"self.{component}", node)


def passed_to(function: str, node: ast.AST) -> dict[str, str]:
    """The keyword arguments of all calls of a function within a node, each with its expression."""
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call) and ast.unparse(n.func) == function]
    return {k.arg: ast.unparse(k.value).removeprefix("self.") for call in calls for k in call.keywords if k.arg}


def find_init(node: ast.ClassDef) -> ast.FunctionDef | None:
    """The constructor that a class defines itself."""
    return next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)


def find_definition(target: str) -> tuple[str, Definition] | None:
    """The module that defines a class or function, and the definition; re-exports are followed."""
    module, node = find_name(target) or ("", None)
    return (module, node) if isinstance(node, ast.ClassDef | ast.FunctionDef) else None


def find_name(target: str) -> tuple[str, Definition | ast.expr] | None:
    """The module that defines a dotted name, and its class, function or assigned expression."""
    module, _, name = target.rpartition(".")
    for _ in range(8):  # more re-exports in a row than any library has
        tree = parse_module(module)
        if tree is None:
            return None
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                return module, node
            if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == [name]:
                return module, node.value
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and node.value is not None:
                return module, node.value
        source = imported_names(module).get(name)
        if source is None:
            return None
        module, _, name = source.rpartition(".")
    return None


def resolve(module: str, name: str) -> str:
    """The full dotted name of what a module calls `name`."""
    head, _, rest = name.partition(".")
    found = imported_names(module).get(head, f"{module}.{head}")
    return f"{found}.{rest}" if rest else found


@functools.cache
def imported_names(module: str) -> dict[str, str]:
    """The names that a module imports, anywhere in it, each with the dotted name that it stands for."""
    tree = parse_module(module)
    found: dict[str, str] = {}
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.ImportFrom):
            source = absolute_module(node, module)
            found |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
    return found


def absolute_module(node: ast.ImportFrom, module: str) -> str:
    """The module that a `from` clause names, relative or not."""
    if not node.level:
        return node.module or ""
    path = find_source(module)
    is_package = path is not None and path.name == "__init__.py"
    parents = module.split(".") if is_package else module.split(".")[:-1]
    return ".".join([*parents[: len(parents) - node.level + 1], *([node.module] if node.module else [])])


@functools.cache
def parse_module(module: str) -> ast.Module | None:
    """The syntax tree of a module, or None when it has no source."""
    path = find_source(module)
    return None if path is None else ast.parse(path.read_text(encoding="utf-8"))


def package_exists(module: str) -> bool:
    """Whether Python finds the top-level package of a module."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


@functools.cache
def find_source(module: str) -> Path | None:
    """The file of a module. Only the top-level package is looked up by Python; looking further would import it."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top) if top else None
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return None
    if not rest:
        return Path(spec.origin) if spec.origin.endswith(".py") else None
    path = Path(spec.origin).parent.joinpath(*rest)
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)
