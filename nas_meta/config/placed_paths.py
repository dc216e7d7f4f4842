"""Paths of a config file, which start from the folder of the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from nas_meta.config.provenance import Source
from nas_meta.config.sections import PLUGIN_SECTIONS, Config
from nas_meta.core import plugins
from nas_meta.core.paths import MisplacedPath, with_absolute_plugins
from nas_meta.core.placing import Misplaced, placed
from nas_meta.errors import ConfigError, PluginError
from nas_meta.evaluation.hyperparameters import CHOICE


def with_placed_paths(
    document: Mapping[str, Any], named: Mapping[str, Any], folder: str, source: Source
) -> dict[str, Any]:
    """Return the document of a config file with absolute paths.

    Args:
        document: The sections, not validated yet.
        named: The same with the overrides of the command line, which may name other plugins.
        folder: Folder of the file.
        source: Where the values stand, for errors, and the keys of the overrides.

    Returns:
        A copy without the values that the overrides replace, whose paths need not exist.

    Raises:
        ConfigError: A path does not exist in the folder, but in the current one.
    """
    result: dict[str, Any] = {}
    for name, section in _not_replaced(document, source.overridden).items():
        try:
            if name in PLUGIN_SECTIONS:
                section = with_absolute_plugins(section, folder=folder)
                for model in _models(name, section, document[name], named.get(name)):
                    section = placed(model, section, folder, (name,))
                result[name] = section
            else:
                result |= placed(Config, {name: section}, folder)
        except Misplaced as error:
            key = ".".join(map(str, error.path))
            raise ConfigError(f"{source.at(error.path)}: {key} {error}") from error
        except MisplacedPath as error:
            raise ConfigError(f"{source.at((name,))}: {name} {error}") from error
    return result


def _not_replaced(document: Mapping[str, Any], overridden: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return a document without the dotted keys that overrides set."""
    return {
        key: _not_replaced(value, overridden, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in document.items()
        if f"{prefix}{key}" not in overridden
    }


def _models(section: str, given: Any, written: Any, named: Any) -> Iterator[type[BaseModel]]:
    """Yield the models of the keys of a section that names a plugin: its own, and that of each possible plugin.

    Args:
        section: Name of the section.
        given: Its values, with the absolute paths of plugin files.
        written: Its values in the file.
        named: Its values with overrides.
    """
    if not isinstance(given, Mapping) or not isinstance(named, Mapping):
        return  # validation reports it
    model, kind, key = PLUGIN_SECTIONS[section]
    yield model
    overridden = named.get(key) != written.get(key)
    name = (named if overridden else given).get(key, model.model_fields[key].default)
    names = name.get(CHOICE) if isinstance(name, Mapping) else [name]
    for each in names if isinstance(names, list) else []:
        try:
            options = plugins.options_of(kind, each) if isinstance(each, str) else None
        except PluginError:
            continue  # validation reports it
        if options is not None:
            yield options
