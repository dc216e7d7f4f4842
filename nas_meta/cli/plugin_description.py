"""Describe a plugin as plain data: its options, its choices and the package it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nas_meta.core import plugins
from nas_meta.core.options import PluginOptions
from nas_meta.tasks.examples import MODALITIES


def options_of(model: type[PluginOptions], prefix: str = "") -> Iterator[dict[str, Any]]:
    """Iterate over the options of a plugin, nested ones under ``parent.name``.

    Args:
        model: Options model of the plugin.
        prefix: Prefix of every name.

    Yields:
        The name, the default (``"required"`` for an option without one) and the description of each option.
    """
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(default, PluginOptions):
            yield from options_of(type(default), f"{prefix}{name}.")
        else:
            yield {"name": prefix + name, "default": default, "description": field.description or ""}


def describe(kind: str, name: str) -> dict[str, Any]:
    """Describe a plugin.

    Args:
        kind: Kind of plugin: ``spaces``, ``strategies``, ``learners``, ``stopping`` or ``tasks``.
        name: Name of the plugin, or ``PATH:CLASS``.

    Returns:
        Its name, summary, origin and options; for a task source also the modality of its examples (``gives``), and for
        a search space that of its models (``takes``), the number of architectures and the values of every choice.

    Raises:
        PluginError: The plugin does not exist or cannot be loaded.
    """
    plugin = plugins.load(kind, name)
    row = next((r for r in plugins.installed(kind) if r.name == name), None)
    description: dict[str, Any] = {
        "name": name,
        "summary": (plugin.__doc__ or "").strip().split("\n")[0],
        "origin": f"the package {row.distribution} {row.version}" if row else name,
        "options": list(options_of(plugin.Options)),
    }
    if kind == "tasks":
        description["gives"] = MODALITIES.get(plugin.modality, plugin.modality)
    if kind == "spaces":
        space = plugin()
        description["takes"] = MODALITIES.get(space.modality, space.modality)
        description["architectures"] = space.size()
        description["choices"] = {n: list(c.values) for n, c in space.table.items()}
    return description
