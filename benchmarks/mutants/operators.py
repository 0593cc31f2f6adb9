"""Mutation operators: for a node of a syntax tree, the small bugs that can be made of it.

A mutation replaces text and leaves everything around it as it is. What cannot change behaviour is left out: docstrings,
annotations, messages, log lines, assertions and imports.
"""

import ast
import re
from collections.abc import Iterator

# (start, end, replacement); positions are (line, byte offset in the line), as in `ast`
Position = tuple[int, int]
Mutation = tuple[str, Position, Position, str]

SWAPPED = {
    **{"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not", "is not": "is"},
    **{"in": "not in", "not in": "in", "+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "*", "**": "*"},
    **{"<<": ">>", ">>": "<<", "and": "or", "or": "and", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "//=": "*="},
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
SPOKEN = {"log", "logger", "warnings", "console"}  # objects that only say something
SAYING = {"print", "warn", "debug", "info", "warning", "error", "exception"}
# A decorator that gives a function its interface; without it nothing runs.
STRUCTURAL = re.compile(
    r"(property|staticmethod|classmethod|abstractmethod|runtime_checkable|.*\.setter|.*contextmanager|.*dataclass.*)"
)
TYPES = {"Annotated", "Literal", "Callable", "Mapping", "Sequence", "Iterable", "Iterator", "ClassVar"}
# Arguments without which the same happens: on Linux, on a CPU, or but for the layout of a file.
NEUTRAL = {"encoding", "newline", "strict", "device", "thread_name_prefix", "stacklevel", "indent"}
# Methods of tensors whose numbers name a dimension.
DIMENSIONAL = set(
    "gather squeeze unsqueeze flatten unflatten transpose movedim softmax log_softmax cumsum size".split()
)
# Calls whose arguments only inform the type checker, or which build the class itself.
UNTOUCHED = {"cast", "super", "TypeVar", "isinstance", "issubclass", "getattr", "hasattr"}


def start(node: ast.expr | ast.stmt) -> Position:
    """Where a node begins."""
    return node.lineno, node.col_offset


def end(node: ast.expr | ast.stmt) -> Position:
    """Where a node ends."""
    assert node.end_lineno is not None and node.end_col_offset is not None
    return node.end_lineno, node.end_col_offset


def is_message(node: ast.AST) -> bool:
    """Whether a call only says something to a person."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        return called.value.id in SPOKEN and called.attr in SAYING
    return isinstance(called, ast.Name) and called.id == "print"


def children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node that may be mutated."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.JoinedStr | ast.Raise) or is_message(node):
        return
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in TYPES:
        return
    if isinstance(node, ast.keyword) and node.arg in NEUTRAL:
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        yield from (v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST))


class Operators:
    """The mutations of the nodes of one source text.

    Args:
        source: the text, UTF-8.
    """

    def __init__(self, source: bytes) -> None:
        self.lines = source.splitlines(keepends=True)
        self.indices: set[ast.AST] = set()  # numbers that count from either end: dim=-1 may be dim=1

    def text(self, first: Position, last: Position) -> str:
        """The text between two positions."""
        (a, b), (c, d) = first, last
        lines = self.lines[a - 1 : c]
        lines[-1] = lines[-1][:d]
        lines[0] = lines[0][b:]
        return b"".join(lines).decode()

    def mutations(self, node: ast.AST) -> Iterator[Mutation]:
        """The mutations of a node itself, without those of its parts."""
        method = getattr(self, f"of_{type(node).__name__.lower()}", None)
        if method is not None:
            yield from method(node)
        if isinstance(node, ast.stmt):
            yield from self.of_statement(node)
        for test in (getattr(node, "test", None), *getattr(node, "ifs", [])):
            if isinstance(test, ast.expr) and not isinstance(node, ast.Assert):
                yield "condition", start(test), end(test), f"(not ({self.text(start(test), end(test))}))"

    def swap(self, name: str, left: ast.expr, right: ast.expr) -> Iterator[Mutation]:
        """Another operator between two expressions."""
        gap = self.text(end(left), start(right))
        found = re.search(r"not\s+in|is\s+not|\bin\b|\bis\b|\band\b|\bor\b|[<>=!+\-*/%]+", gap)
        if found is None or "#" in gap or (token := " ".join(found[0].split())) not in SWAPPED:
            return
        changed = gap[: found.start()] + SWAPPED[token] + gap[found.end() :]
        yield name, end(left), start(right), changed

    def of_compare(self, node: ast.Compare) -> Iterator[Mutation]:
        for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
            yield from self.swap("comparison", left, right)

    def of_boolop(self, node: ast.BoolOp) -> Iterator[Mutation]:
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from self.swap("and/or", left, right)

    def of_binop(self, node: ast.BinOp) -> Iterator[Mutation]:
        """Arithmetic; sums of texts and lists cannot be anything else."""
        parts = ast.Constant, ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp
        if any(isinstance(s, parts) and not is_number(s) for s in (node.left, node.right)):
            return
        yield from self.swap("arithmetic", node.left, node.right)

    def of_augassign(self, node: ast.AugAssign) -> Iterator[Mutation]:
        if not isinstance(node.value, ast.Constant | ast.JoinedStr | ast.List) or is_number(node.value):
            yield from self.swap("arithmetic", node.target, node.value)

    def of_unaryop(self, node: ast.UnaryOp) -> Iterator[Mutation]:
        if isinstance(node.op, ast.Not | ast.USub) and node not in self.indices:
            yield "sign", start(node), end(node), f"({self.text(start(node.operand), end(node.operand))})"

    def of_subscript(self, node: ast.Subscript) -> Iterator[Mutation]:
        """Nothing; its index is noted."""
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        self.indices.update(n for part in parts if not isinstance(part, ast.Slice) for n in ast.walk(part))
        yield from ()

    def of_constant(self, node: ast.Constant) -> Iterator[Mutation]:
        if isinstance(node.value, bool):
            yield "flag", start(node), end(node), str(not node.value)
        elif is_number(node):
            value = node.value
            yield "one more", start(node), end(node), repr(value + 1)
            if value and node not in self.indices:
                yield "doubled", start(node), end(node), repr(2 * value)
                yield "negated", start(node), end(node), f"({-value!r})"

    def of_call(self, node: ast.Call) -> Iterator[Mutation]:
        """A function swapped for its opposite; an argument left out."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        self.indices.update(n for k in node.keywords if k.arg in ("dim", "axis") for n in ast.walk(k.value))
        if isinstance(node.func, ast.Attribute) and node.func.attr in DIMENSIONAL:
            self.indices.update(n for argument in node.args for n in ast.walk(argument))
        if name in FUNCTIONS:
            yield "function", start(node.func), end(node.func), FUNCTIONS[name]
        if name in UNTOUCHED or is_message(node):
            return
        arguments = [*node.args, *(k.value for k in node.keywords)]
        droppable = [k.value for k in node.keywords if k.arg is not None and k.arg not in NEUTRAL]
        droppable += node.args[-1:] if len(node.args) > 1 and not isinstance(node.args[-1], ast.Starred) else []
        for argument in droppable:
            index = arguments.index(argument)
            first = end(arguments[index - 1]) if index else end(node.func)
            text = self.text(first, end(argument))
            yield "argument", first, end(argument), "" if index else text[: text.index("(") + 1]

    def of_return(self, node: ast.Return) -> Iterator[Mutation]:
        value = node.value
        if value is None or (isinstance(value, ast.Constant) and value.value is None):
            return
        logical = isinstance(value, ast.Compare | ast.BoolOp) or (
            isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
        )
        text = f"(not ({self.text(start(value), end(value))}))" if logical else "None"
        yield "return value", start(value), end(value), text

    def of_functiondef(self, node: ast.FunctionDef) -> Iterator[Mutation]:
        """A decorator such as `torch.no_grad()` left out."""
        for decorator in node.decorator_list:
            if not STRUCTURAL.fullmatch(ast.unparse(decorator)):
                line, column = start(decorator)
                yield "decorator", (line, column - 1), end(decorator), ""

    def of_with(self, node: ast.With) -> Iterator[Mutation]:
        if all(item.optional_vars is None for item in node.items):
            first, last = start(node.items[0].context_expr), end(node.items[-1].context_expr)
            yield "context", start(node), last, re.sub(r"[^\n]", "", self.text(start(node), first)) + "if True"

    def of_statement(self, node: ast.stmt) -> Iterator[Mutation]:
        """A statement left out, where the code still runs without it."""
        if isinstance(node, ast.Expr):
            value = node.value
            delete = isinstance(value, ast.Call) and not is_message(value) and "super()" not in ast.unparse(value.func)
        elif isinstance(node, ast.Assign):
            delete = all(isinstance(t, ast.Attribute | ast.Subscript) for t in node.targets)
        else:
            delete = isinstance(node, ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete)
        if delete:
            yield "statement", start(node), end(node), "pass"


def is_number(node: ast.expr) -> bool:
    """Whether a node is a number."""
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)
