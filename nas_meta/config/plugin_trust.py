"""Trust in code that a config names: it runs only if the user named it, not because a stored run names it.

Code is named by plugin files (``path/to/file.py:Name``) and by options of the type :data:`CodeName`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nas_meta.config.sections import PLUGIN_SECTIONS
from nas_meta.core import plugins
from nas_meta.core.options import code_names
from nas_meta.core.paths import absolute_plugin
from nas_meta.errors import PluginError


def plugin_files(document: Mapping[str, Any]) -> set[str]:
    """Return the plugin files and other code that a config names.

    Only installed plugins are imported for that.

    Args:
        document: The config as plain data.

    Returns:
        Names such as ``path/to/file.py:Name`` and ``package.module:Name``, including those in the options of plugins.
    """

    def files_in(value: Any) -> Iterator[str]:
        if isinstance(value, str) and ".py:" in value:
            yield absolute_plugin(value)
        elif isinstance(value, (Mapping, list)):
            for inner in value.values() if isinstance(value, Mapping) else value:
                yield from files_in(inner)

    files = {file for section in PLUGIN_SECTIONS for file in files_in(document.get(section))}
    return files | {code for section in PLUGIN_SECTIONS for code in _code_in_section(section, document.get(section))}


def _code_in_section(section: str, given: Any) -> Iterator[str]:
    """Iterate over the code that options of installed plugins name."""
    if not isinstance(given, Mapping):
        return
    model, kind, key = PLUGIN_SECTIONS[section]
    named = given.get(key, model.model_fields[key].default)
    if isinstance(named, Mapping):
        named = named.get("choice")
    for name in named if isinstance(named, (list, tuple)) else [named]:
        try:
            options = None if not isinstance(name, str) or ".py:" in name else plugins.options_of(kind, name)
        except PluginError:
            continue  # reading the config reports it
        if options is not None:
            yield from map(absolute_plugin, code_names(options, given))


def refuse_plugin_files(document: Mapping[str, Any], run_dir: Path, trusted: Collection[str] = ()) -> None:
    """Check that a run needs no code besides installed plugins and what the user named.

    Args:
        document: The config of the run as plain data.
        run_dir: The run directory, for the error message.
        trusted: Plugin files and other code that the user named.

    Raises:
        PluginError: The config names other code.
    """
    for file in sorted(plugin_files(document) - set(trusted)):
        word = "plugin file" if ".py:" in file else "class"
        raise PluginError(
            f"{run_dir} names the {word} {file}, whose code would be run; expected --allow-plugins "
            "(allow_plugins=True in Python) if you trust it"
        )
