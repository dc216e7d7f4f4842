"""Names that a package imports on first use, so that importing the package itself stays cheap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, exports: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the module ``__getattr__`` (PEP 562) of a package.

    Args:
        package: The package's ``__name__``.
        exports: For each exported name the module that defines it, or ``module:attribute`` if it is called differently
            in that module.

    Returns:
        A function that imports the module of a name and returns the value of the name. It raises ``AttributeError`` for
        names that are not in ``exports``.
    """

    def get(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module, _, attribute = exports[name].partition(":")
        return getattr(import_module(module), attribute or name)

    return get
