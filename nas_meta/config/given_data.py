"""Labelled data that a Python user passes to a search: kept as a file of the run, which its config names.

The run directory then has everything that resuming, rerunning and exporting need, also after it has been moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas_meta.config.resolved import ResolvedConfig
from nas_meta.config.sections import TasksSection
from nas_meta.core import plugins
from nas_meta.core.paths import absolute
from nas_meta.errors import PluginError
from nas_meta.tasks.reading.in_memory import Columns

FILE = "search-data.jsonl"  # in the run directory
SOURCE = "jsonl"
OF_FILES = ("source", "path", "train", "valid", "test", "encoding")
COLUMNS = ("text", "label", "group")


def given_columns(document: Mapping[str, Any]) -> Columns:
    """Return the columns that a config names in its section ``tasks``.

    Args:
        document: The config as plain data, not validated yet.
    """
    tasks = document.get("tasks")
    named = tasks if isinstance(tasks, Mapping) else {}
    return Columns(**{key: named[key] for key in COLUMNS if isinstance(named.get(key), str)})


def for_given_data(document: Mapping[str, Any], directory: str | Path | None) -> Mapping[str, Any]:
    """Return a config whose task source reads the data in a run directory.

    Args:
        document: The config as plain data, not validated yet. Its own source is replaced, with the options that only
            this source has.
        directory: The run directory; None if it is not known yet.

    Returns:
        The config.
    """
    document = without_own_files(document)
    tasks = document["tasks"]
    if not isinstance(tasks, Mapping):
        return document  # resolving it reports that
    own = {"path": _path(directory or "."), "encoding": "utf-8"}
    own |= {key: key for key in COLUMNS if key != "group" or tasks.get("group") is not None}
    return {**document, "tasks": {**tasks, **own}}


def without_own_files(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the files of its task source, which given data replace.

    Args:
        document: The config as plain data, not validated yet.

    Returns:
        The config with the task source of given data and those options that both sources have.
    """
    tasks = document.get("tasks")
    if not (tasks is None or isinstance(tasks, Mapping)):
        return dict(document)
    tasks = dict(tasks or {})
    source = tasks.get("source", TasksSection.model_fields["source"].default)
    try:
        replaced = set(plugins.options_of("tasks", source).model_fields) if isinstance(source, str) else set()
    except PluginError:
        replaced = set()
    replaced -= set(plugins.options_of("tasks", SOURCE).model_fields)
    kept = {key: value for key, value in tasks.items() if key not in replaced and key not in OF_FILES}
    return {**document, "tasks": {**kept, "source": SOURCE}}


def in_folder(resolved: ResolvedConfig, directory: str | Path) -> ResolvedConfig:
    """Return a config of given data, with the run directory that the search has got.

    Args:
        resolved: The config, made from what :func:`for_given_data` returns.
        directory: The run directory.
    """
    options = resolved.options["tasks"].model_copy(update={"path": Path(_path(directory))})
    given = {**resolved.given, "tasks": {**resolved.given["tasks"], "path": _path(directory)}}
    return replace(resolved, options={**resolved.options, "tasks": options}, given=given)


def with_own_data(document: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return the config of a run with the path that its data have now: the run directory may have been moved.

    Args:
        document: The config that the journal records.
        directory: The run directory.

    Returns:
        The same config if the search read its data from elsewhere.
    """
    tasks = document.get("tasks")
    path = tasks.get("path") if isinstance(tasks, dict) else None
    if not isinstance(path, str) or Path(path).name != FILE or not (directory / FILE).is_file():
        return document
    return {**document, "tasks": {**tasks, "path": _path(directory)}}


def with_movable_data(document: Mapping[str, Any], directory: Path) -> Mapping[str, Any]:
    """Return the config of a run as its ``config.yaml`` has it: the run's own data are beside the file.

    Args:
        document: The config.
        directory: The run directory.
    """
    if document["tasks"].get("path") != _path(directory):
        return document
    return {**document, "tasks": {**document["tasks"], "path": FILE}}


def without_implied(resolved: ResolvedConfig) -> dict[str, Any]:
    """Return what the user wrote of a config, without the keys that were filled in.

    Args:
        resolved: The config.
    """
    return _without(resolved.given, resolved.implied, ())


def _without(document: Mapping[str, Any], implied: Any, path: tuple[str, ...]) -> dict[str, Any]:
    return {
        key: _without(value, implied, (*path, key)) if isinstance(value, Mapping) else value
        for key, value in document.items()
        if (*path, key) not in implied
    }


def _path(directory: str | Path) -> str:
    return absolute(Path(directory) / FILE)
