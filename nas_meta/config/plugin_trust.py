"""Code that a config names: only what the user named or installed is run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nas_meta.config.sections import PLUGIN_SECTIONS
from nas_meta.errors import PluginError


def plugin_files(document: Mapping[str, Any]) -> set[str]:
    """The plugin files that a config names, as ``path/to/file.py:Name``, also in the options of plugins."""

    def named(value: Any) -> Iterator[str]:
        if isinstance(value, str) and ".py:" in value:
            yield value
        elif isinstance(value, (Mapping, list)):
            for inner in value.values() if isinstance(value, Mapping) else value:
                yield from named(inner)

    return {file for section in PLUGIN_SECTIONS for file in named(document.get(section))}


def refuse_plugin_files(document: Mapping[str, Any], run_dir: Path, named: Collection[str] = ()) -> None:
    """Raises PluginError where the config of a run names a plugin file that the user did not name."""
    for file in sorted(plugin_files(document) - set(named)):
        raise PluginError(
            f"{run_dir} names the plugin file {file}, whose code would be run; expected --allow-plugins if you trust it"
        )
