"""A plugin in plain data: its options, choices and where it comes from."""

from __future__ import annotations

from typing import Any

from nas_meta import plugins


def describe(kind: str, name: str) -> dict[str, Any]:
    """Options with defaults of a plugin; for a space also its choices and the number of architectures.

    Raises:
        PluginError: there is no such plugin, or it cannot be loaded.
    """
    plugin = plugins.load(kind, name)
    row = next((r for r in plugins.installed(kind) if r.name == name), None)
    description: dict[str, Any] = {
        "name": name,
        "summary": (plugin.__doc__ or "").strip().split("\n")[0],
        "origin": f"the package {row.distribution} {row.version}" if row else name,
        "options": [
            {
                "name": option,
                "default": "required" if field.is_required() else field.default,
                "description": field.description or "",
            }
            for option, field in plugin.Options.model_fields.items()
        ],
    }
    if kind == "spaces":
        space = plugin()
        description["architectures"] = space.size()
        description["choices"] = {n: list(c.values) for n, c in space.table.items()}
    return description
