"""Hold a value of a configuration against an annotation: types, choices and bounds.

`int | None`, `Literal["lstm", "gru"]`, `list[int]`, `Annotated[int, Ge(1)]` and names for any of them are understood.
An annotation that says more than a configuration can hold, or that cannot be resolved, accepts anything.
"""

import ast
import difflib
import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from minigpt.config.signature import Parameter, find_name, resolve

ANYTHING = (object,)
TYPES: dict[str, tuple[type, ...]] = {
    "Any": ANYTHING,
    "object": ANYTHING,
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "Path": (str,),
    "None": (type(None),),
    "dict": (dict,),
    "Mapping": (dict,),
    "list": (list,),
    "Sequence": (list,),
    "Iterable": (list,),
    "tuple": (list,),
}
BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "Ge": (operator.ge, "at least"),
    "Gt": (operator.gt, "more than"),
    "Le": (operator.le, "at most"),
    "Lt": (operator.lt, "less than"),
}
LARGEST, SMALLEST = 1e19, 1e-37  # the product of two of the largest, and the smallest, are still float32


@dataclass(frozen=True)
class Option:
    """One member of a union.

    Attributes:
        name: as a user reads it.
        types: the Python types that it accepts.
        choices: the only values that it accepts; empty for any.
        bounds: pairs of a key of `BOUNDS` and a number.
        items: annotation of all elements of a list.
        members: annotations of the elements of a tuple, one for each.
        is_component: whether a mapping with a `_target_` is expected, such as for `Callable`.
    """

    name: str
    types: tuple[type, ...] = ANYTHING
    choices: tuple[Any, ...] = ()
    bounds: tuple[tuple[str, float], ...] = ()
    items: Parameter | None = None
    members: tuple[Parameter, ...] = ()
    is_component: bool = False

    def accepts_type(self, value: Any) -> bool:
        """Whether the value has one of the types; a bool is no number."""
        if isinstance(value, bool):
            return bool in self.types or object in self.types
        return isinstance(value, self.types)

    def mismatch(self, value: Any) -> str | None:
        """What a value of the right type must be instead; None when it fits."""
        if self.choices and value not in self.choices:
            near = difflib.get_close_matches(str(value), map(str, self.choices), n=1)
            return f"one of {', '.join(map(str, self.choices))}" + (f"; did you mean {near[0]!r}?" if near else "")
        if not all(BOUNDS[name][0](value, number) for name, number in self.bounds):
            return " and ".join(f"{BOUNDS[name][1]} {number:g}" for name, number in self.bounds)
        if self.members and len(value) != len(self.members):
            return f"a list of {len(self.members)} values"
        items = [] if self.items is None else [self.items] * len(value)
        elements = zip(self.members or items, value if self.members or items else (), strict=True)
        return next((f"a list of values {m}" for annotation, v in elements if (m := mismatch(annotation, v))), None)


def mismatch(parameter: Parameter, value: Any) -> str | None:
    """What a value must be to fit a parameter's annotation; None when it fits."""
    if isinstance(value, int | float) and (reason := number_mismatch(value)) is not None:
        return reason
    if isinstance(value, Mapping) and "_target_" in value:
        return None  # what it builds is known to its constructor alone
    options = union(parameter)
    matching = [option for option in options if option.accepts_type(value) and not option.is_component]
    reasons = [option.mismatch(value) for option in matching]
    if matching:
        return None if None in reasons else reasons[0]
    plain = list(dict.fromkeys(option.name for option in options if not option.is_component and not option.choices))
    choices = [str(choice) for option in options for choice in option.choices]
    if any(option.name == "Callable" for option in options):
        return " or ".join(["a component", *plain])
    if choices and isinstance(value, str):
        return f"one of {', '.join(choices)}" + (f", or of type {' or '.join(plain)}" if plain else "")
    return f"of type {' or '.join([*plain, *(['str'] if choices else [])])}"


def number_mismatch(value: int | float) -> str | None:
    """What a number must be for 64-bit integers and float32 to hold it; None when they do."""
    if isinstance(value, int):
        return "a number of 64 bits" if abs(value) >= 2**63 else None
    if not math.isfinite(value):
        return "a finite number"
    if abs(value) > LARGEST:
        return f"from {-LARGEST:g} to {LARGEST:g}: float32 overflows beyond"
    return f"0 or at least {SMALLEST:g} in size: float32 underflows below" if 0 < abs(value) < SMALLEST else None


@functools.cache
def union(parameter: Parameter) -> tuple[Option, ...]:
    """The members of a parameter's annotation."""
    if parameter.annotation is None:
        return (Option("anything"),)
    return tuple(members(parameter.annotation, parameter.module))


def members(node: ast.expr, module: str) -> Iterator[Option]:
    """The members of `A | B`, `Optional[A]`, `Union[A, B]`; names of such annotations are followed."""
    match node:
        case ast.BinOp(op=ast.BitOr()):
            yield from members(node.left, module)
            yield from members(node.right, module)
        case ast.Constant(value=None):
            yield Option("null", TYPES["None"])
        case ast.Constant(value=str(text)):
            yield from members(ast.parse(text, mode="eval").body, module)
        case ast.Subscript():
            yield from subscript(node, module)
        case ast.Name() | ast.Attribute():
            yield from named(ast.unparse(node), module)
        case _:
            yield Option("anything")


def subscript(node: ast.Subscript, module: str) -> Iterator[Option]:
    """The members of `Name[...]`."""
    name = ast.unparse(node.value).rpartition(".")[2]
    arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    match name:
        case "Optional" | "Union":
            for argument in arguments:
                yield from members(argument, module)
            if name == "Optional":
                yield Option("null", TYPES["None"])
        case "Literal":
            choices = tuple(a.value for a in arguments if isinstance(a, ast.Constant))
            yield Option("str", tuple({type(choice) for choice in choices}), choices)
        case "Annotated":
            bounds = tuple(bound for argument in arguments[1:] if (bound := read_bound(argument)) is not None)
            for option in members(arguments[0], module):
                yield replace(option, bounds=option.bounds + bounds) if object not in option.types else option
        case "list" | "Sequence" | "Iterable":
            yield Option(name, TYPES[name], items=Parameter(arguments[0], module, True))
        case "tuple" if not any(isinstance(a, ast.Constant) for a in arguments):  # tuple[int, ...] has any length
            yield Option(name, TYPES[name], members=tuple(Parameter(a, module, True) for a in arguments))
        case "Callable":
            yield Option("Callable", is_component=True)
        case _:
            yield Option(name, TYPES.get(name, ANYTHING))


def named(name: str, module: str) -> Iterator[Option]:
    """The members of what a name stands for; a class that is no plain type is that of a component."""
    if name in TYPES:
        yield Option("null" if name == "None" else name, TYPES[name])
        return
    if name.rpartition(".")[2] == "Callable":
        yield Option("Callable", is_component=True)
        return
    found = find_name(resolve(module, name))
    if found is None:
        yield Option(name)
    elif isinstance(found[1], ast.expr):
        yield from members(found[1], found[0])
    else:
        yield Option(name, types=(), is_component=True)


def read_bound(node: ast.expr) -> tuple[str, float] | None:
    """`Ge(1)` as ("Ge", 1); None for metadata that is no bound."""
    if isinstance(node, ast.Call) and (name := ast.unparse(node.func).rpartition(".")[2]) in BOUNDS:
        value = [*node.args, *(k.value for k in node.keywords)][0]
        return name, read_number(value)
    return None


def read_number(node: ast.expr) -> float:
    """A number, its negative, or a power such as 2**63."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return read_number(node.left) ** read_number(node.right)
    return ast.literal_eval(node)
