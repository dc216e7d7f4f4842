"""Names that a package imports when they are first used, so that importing the package stays cheap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, exports: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the module ``__getattr__`` (PEP 562) of a package.

    Args:
        package: The package's ``__name__``.
        exports: The module that defines each exported name, or ``module:name`` where it has another name there.

    Returns:
        A function that imports the module of a name and returns the name's value.
    """

    def get(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module, _, there = exports[name].partition(":")
        return getattr(import_module(module), there or name)

    return get
