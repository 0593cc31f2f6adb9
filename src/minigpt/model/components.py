"""The classes of this package by their dotted names."""

import pkgutil
from importlib import import_module
from types import ModuleType

from minigpt import model as model_package


def classes_of(package: ModuleType) -> dict[str, type]:
    """Return the classes that the modules of a package define, by their dotted names."""
    modules = [import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return {
        f"{c.__module__}.{c.__qualname__}": c
        for module in modules
        for c in vars(module).values()
        if isinstance(c, type) and c.__module__ == module.__name__
    }


COMPONENTS = classes_of(model_package)
