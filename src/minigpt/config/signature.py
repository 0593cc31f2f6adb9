"""What a `_target_` takes, read from its source without importing it.

Importing torch and Lightning takes seconds; a misspelt option should be answered at once. So the signature is parsed:
names, annotations, and for `**options` those of the base class, as the constructor itself would pass them on.
"""

import ast
import functools
import importlib.util
from pathlib import Path

Signature = dict[str, str]  # parameter -> its annotation as written, "" when there is none


@functools.cache
def read_signature(target: str) -> Signature | None:
    """The signature of a dotted name; None when there is no such class or function in its source."""
    found = find_definition(target)
    if found is None:
        return None
    module, node = found
    if isinstance(node, ast.FunctionDef):
        return parameters_of(node.args)
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    parameters: Signature = {}
    if init is None or init.args.kwarg is not None:
        for base in node.bases:
            parameters |= read_signature(resolve(module, ast.unparse(base))) or {}
    return parameters | (parameters_of(init.args) if init is not None else {})


def parameters_of(arguments: ast.arguments) -> Signature:
    """Names and annotations of a function's parameters, without self."""
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return {a.arg: ast.unparse(a.annotation) if a.annotation else "" for a in every if a.arg != "self"}


def find_definition(target: str) -> tuple[str, ast.ClassDef | ast.FunctionDef] | None:
    """The module that defines a dotted name, and the definition; re-exports are followed."""
    module, _, name = target.rpartition(".")
    for _ in range(8):  # more re-exports in a row than any library has
        tree = parse_module(module)
        if tree is None:
            return None
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                return module, node
        onward = imported_from(tree, module, name)
        if onward is None:
            return None
        module, _, name = onward.rpartition(".")
    return None


def resolve(module: str, name: str) -> str:
    """The full dotted name of what a module calls `name`."""
    head, _, rest = name.partition(".")
    tree = parse_module(module)
    for node in tree.body if tree is not None else []:
        if isinstance(node, ast.ClassDef) and node.name == head:
            return f"{module}.{name}"
        if isinstance(node, ast.Import) and any((a.asname or a.name) == head for a in node.names):
            return name
    onward = imported_from(tree, module, head) if tree is not None else None
    return f"{onward}.{rest}" if onward and rest else onward or f"{module}.{name}"


def imported_from(tree: ast.Module, module: str, name: str) -> str | None:
    """Where `from ... import name` in a module takes the name from."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    source = node.module or ""
                    if node.level:
                        package = module if is_package(module) else module.rpartition(".")[0]
                        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                        source = ".".join([*parents, *([node.module] if node.module else [])])
                    return f"{source}.{alias.name}"
    return None


def is_package(module: str) -> bool:
    """Whether a module is a folder."""
    path = source_file(module)
    return path is not None and path.name == "__init__.py"


@functools.cache
def parse_module(module: str) -> ast.Module | None:
    """The syntax tree of a module, or None when it has no source."""
    path = source_file(module)
    return None if path is None else ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def source_file(module: str) -> Path | None:
    """The file of a module. Only the top-level package is looked up; finding more would import it."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return None
    if not rest:
        return Path(spec.origin)
    path = Path(spec.origin).parent.joinpath(*rest)
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)


TYPES = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
    "dict": (dict,),
    "list": (list,),
    **dict.fromkeys(("Tensor", "Profiler", "Strategy", "Accelerator"), ()),  # a configuration cannot hold one
}


def accepts(annotation: str, value: object) -> bool:
    """Whether a value of a configuration fits an annotation; one that has more than plain types fits anything."""
    kinds = alternatives(ast.parse(annotation or "Any", mode="eval").body)
    types = tuple(t for kind in kinds for t in TYPES.get(kind.partition("[")[0], (object,)))
    return "bool" in kinds or object in types if isinstance(value, bool) else isinstance(value, types)


def alternatives(node: ast.expr) -> set[str]:
    """The members of `A | B`, `Optional[A]` and `Union[A, B]`."""
    if isinstance(node, ast.BinOp):
        return alternatives(node.left) | alternatives(node.right)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("Optional", "Union"):
        members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        extra = {"None"} if ast.unparse(node.value) == "Optional" else set()
        return extra.union(*(alternatives(member) for member in members))
    return {ast.unparse(node)}
