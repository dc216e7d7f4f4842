"""Roles in docstrings, such as ``:meth:`sample```, as links to the API pages of the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

ROLE = re.compile(r":(?:meth|class|func|attr|data|mod|exc):`(~?)([\w.]+)`")
DOCUMENTED = re.compile(r"^::: ([\w.]+)", re.MULTILINE)


class Roles(griffe.Extension):
    """griffe extension that replaces roles by links, or by plain code if the site does not document the target.

    Args:
        pages: Folder with the pages; their ``:::`` blocks name what the site documents.
    """

    def __init__(self, pages: str = "docs"):
        texts = [page.read_text(encoding="utf-8") for page in Path(pages).rglob("*.md")]
        self.documented = {path for text in texts for path in DOCUMENTED.findall(text)}

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings of a package, once it is loaded completely.

        Args:
            pkg: The package.
        """
        for path in sorted(self.documented):  # pages may use a shorter import path than the canonical one
            self.documented.add(pkg[path.removeprefix(f"{pkg.path}.")].canonical_path)
        self._rewrite(pkg)

    def _rewrite(self, thing: griffe.Object) -> None:
        if thing.docstring is not None:
            thing.docstring.value = ROLE.sub(lambda role: self._link(role, thing), thing.docstring.value)
        for member in thing.members.values():
            if isinstance(member, griffe.Object):
                self._rewrite(member)

    def _link(self, role: re.Match[str], thing: griffe.Object) -> str:
        """Return the Markdown that replaces a role in the docstring of an object."""
        short = role[2].rpartition(".")[2] if role[1] else role[2]
        path = self._path(role[2], thing)
        return f"[`{short}`][{path}]" if path else f"`{short}`"

    def _path(self, name: str, thing: griffe.Object) -> str | None:
        """Return the path under which the site documents a name as seen from an object, or None."""
        found: griffe.Object | griffe.Alias | None = None
        scope: Any = thing
        while scope is not None and found is None:
            try:
                found = scope[name]
            except (KeyError, griffe.AliasResolutionError):
                scope = scope.parent
        if found is None:
            return None
        try:
            path, shown = found.canonical_path, found.has_docstring
        except griffe.AliasResolutionError:
            return None
        owner = path.rpartition(".")[0]
        private = path.rpartition(".")[2].startswith("_")
        return path if path in self.documented or (owner in self.documented and shown and not private) else None
