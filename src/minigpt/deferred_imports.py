"""Modules that are imported only when something uses them, so that a command starts sooner.

Lightning imports the compiler of torch, torch's optimizers call it, and torchmetrics imports transformers where it is
installed. Most runs use neither, and both together take longer to import than torch itself (docs/notebook.md).

`importlib.util.LazyLoader` cannot help: it imports a module at `from module import name`. Here such a name is a
stand-in class until the module is imported.
"""

import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from types import ModuleType
from typing import Any

# Each module, and the classes that others import from it by name at their own import.
DEFERRED = {
    "torch._dynamo": ["OptimizedModule"],
    "transformers": [
        *("AutoModel", "AutoModelForMaskedLM", "AutoTokenizer", "PreTrainedModel", "PreTrainedTokenizerBase"),
        *("CLIPModel", "CLIPProcessor"),
    ],
}
LOCK = threading.RLock()


def defer_imports() -> None:
    """Defer the modules of `DEFERRED`; those that are imported already, or not installed, stay as they are."""
    if not any(isinstance(finder, SubmoduleFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, SubmoduleFinder())
    for name, classes in DEFERRED.items():
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is None:
            continue
        module = importlib.util.module_from_spec(spec)
        for class_name in classes:
            vars(module)[class_name] = StandIn(class_name, (), {"__module__": name})
        if name == "torch._dynamo":
            vars(module).update(disable=disable, graph_break=graph_break)
        else:
            vars(module)["__version__"] = version(name)  # which W&B notes
        module.__class__ = DeferredModule
        sys.modules[name] = module


class ExecutedModule(ModuleType):
    """A module that was deferred; it forwards to what its code has put into its place, as transformers does."""

    def __getattr__(self, name: str) -> Any:
        module = sys.modules[self.__name__]
        if module is self:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(module, name)


class DeferredModule(ModuleType):
    """A module that has not been executed yet; the first use of a name that it lacks executes it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(execute(self), name)


def execute(module: ModuleType) -> ModuleType:
    """Execute a deferred module, once, in its own namespace; return the module of its name."""
    with LOCK:
        if isinstance(module, DeferredModule):
            module.__class__ = ExecutedModule  # pyright: ignore[reportAttributeAccessIssue]  # allowed for modules
            spec = module.__spec__
            assert spec is not None and spec.loader is not None
            spec.loader.exec_module(module)
        return sys.modules[module.__name__]


class StandIn(type):
    """The metaclass of stand-ins: a class without instances, which forwards every use to the real class."""

    def __instancecheck__(cls, instance: object) -> bool:
        module = sys.modules[cls.__module__]
        return not isinstance(module, DeferredModule) and isinstance(instance, getattr(module, cls.__name__))

    def __getattr__(cls, name: str) -> Any:
        return getattr(real_class(cls), name)

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return real_class(cls)(*args, **options)


def real_class(stand_in: StandIn) -> Any:
    """The class that a stand-in stands for; its module is executed first."""
    return getattr(execute(sys.modules[stand_in.__module__]), stand_in.__name__)


def disable(fn: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
    """`torch._dynamo.disable`, by which torch and Lightning keep code from being compiled: nothing before any is."""
    compiler = sys.modules["torch._dynamo"]
    disabled: list[Callable[..., Any]] = []

    @wraps(fn)
    def call(*args: Any, **keywords: Any) -> Any:
        if isinstance(compiler, DeferredModule):
            return fn(*args, **keywords)
        if not disabled:
            disabled.append(compiler.disable(fn, recursive, **options))
        return disabled[0](*args, **keywords)

    return call


def graph_break(msg: str = "") -> None:
    """`torch._dynamo.graph_break`, which optimizers call in each step: nothing outside of compiled code."""


class SubmoduleFinder(MetaPathFinder):
    """Executes a deferred package before any of its submodules, as an ordinary import does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent = sys.modules.get(fullname.rpartition(".")[0])
        if not isinstance(parent, DeferredModule):
            return None
        execute(parent)
        module = sys.modules.get(fullname)
        return None if module is None else ModuleSpec(fullname, LoadedModule(module))


class LoadedModule(Loader):
    """The loader of a submodule that its package has imported itself."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import has replaced it
