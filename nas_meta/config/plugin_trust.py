"""Trust in plugin files: code in a file runs only if the user named the file, not because a stored run names it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nas_meta.config.sections import PLUGIN_SECTIONS
from nas_meta.core.paths import absolute_plugin
from nas_meta.errors import PluginError


def plugin_files(document: Mapping[str, Any]) -> set[str]:
    """Return the plugin files that a config names.

    Args:
        document: The config as plain data.

    Returns:
        Names such as ``path/to/file.py:Name``, including those in the options of plugins.
    """

    def files_in(value: Any) -> Iterator[str]:
        if isinstance(value, str) and ".py:" in value:
            yield absolute_plugin(value)
        elif isinstance(value, (Mapping, list)):
            for inner in value.values() if isinstance(value, Mapping) else value:
                yield from files_in(inner)

    return {file for section in PLUGIN_SECTIONS for file in files_in(document.get(section))}


def refuse_plugin_files(document: Mapping[str, Any], run_dir: Path, trusted: Collection[str] = ()) -> None:
    """Check that a run needs no plugin files besides those that the user named.

    Args:
        document: The config of the run as plain data.
        run_dir: The run directory, for the error message.
        trusted: Plugin files that the user named.

    Raises:
        PluginError: The config names another plugin file.
    """
    for file in sorted(plugin_files(document) - set(trusted)):
        raise PluginError(
            f"{run_dir} names the plugin file {file}, whose code would be run; expected --allow-plugins if you trust it"
        )
