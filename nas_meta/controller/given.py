"""The config and the data that a Python user passes to a search, and the data that a run keeps of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas_meta.config.fingerprints.data import data_difference, fingerprint_of_tasks
from nas_meta.config.given_data import (
    FILE,
    for_given_data,
    given_columns,
    in_folder,
    without_implied,
    without_own_files,
)
from nas_meta.config.problem import make_source
from nas_meta.config.provenance import Source, check_plain
from nas_meta.config.resolved import ResolvedConfig, read_document, resolve
from nas_meta.core.files import write_atomically
from nas_meta.core.guard import type_name
from nas_meta.errors import ConfigError, RunError
from nas_meta.tasks.data_facts import word_tasks
from nas_meta.tasks.reading.in_memory import as_json, rows_of
from nas_meta.tasks.sources.files import SPLIT_NAMES


def config_and_data(
    config: Any, data: Any, run_dir: str | Path | None, resume: bool
) -> tuple[ResolvedConfig, bytes | None]:
    """Resolve the config of a search, and read the data that were given with it.

    Args:
        config: As in :func:`nas_meta.search`.
        data: As in :func:`nas_meta.search`; None reads the config's task source.
        run_dir: As in :func:`nas_meta.search`.
        resume: As in :func:`nas_meta.search`: without data and a task source, those of the run are used.

    Returns:
        The config; and the data as a file that the task source of this config reads, None if none were given.

    Raises:
        ConfigError: The config is not valid.
        DataError: The data cannot be used.
    """
    document, source = _document(config, data is not None)
    directory = run_dir or document.get("run_dir")
    if data is None and not (resume and _has_own(document, directory)):
        return config if isinstance(config, ResolvedConfig) else resolve(document, source), None
    check_plain(document, source or Source("config"))
    content = None if data is None else as_json(rows_of(data, given_columns(document), tuple(SPLIT_NAMES)))
    return resolve(for_given_data(document, directory), source), content


def keep_data(directory: Path, content: bytes, resumed: bool) -> None:
    """Write given data into the run directory, where the run's config reads them.

    Args:
        directory: The run directory, locked.
        content: The data.
        resumed: Whether the directory holds the run that is resumed: its own data stay.

    Raises:
        RunError: The file cannot be written.
    """
    if resumed and (directory / FILE).is_file():
        return
    try:
        write_atomically(directory / FILE, content, private=True)
    except OSError as error:
        raise RunError(f"{directory / FILE} cannot be written: {error.strerror}") from error


def refuse_other_data(resolved: ResolvedConfig, directory: Path, content: bytes) -> None:
    """Refuse to resume a run with other data than those that it keeps.

    Data are compared as they are used: after cleaning and splitting.

    Args:
        resolved: The config of the given data, in the run directory.
        directory: The run directory.
        content: The given data.

    Raises:
        ConfigError: The data differ.
        DataError: The given data cannot be used.
    """
    kept = directory / FILE
    if not kept.is_file() or kept.read_bytes() == content:
        return  # without a file, the configs differ in their source, which is refused with that
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE).write_bytes(content)
        before, now = (
            fingerprint_of_tasks(word_tasks(make_source(in_folder(resolved, each)).load()))
            for each in (directory, folder)
        )
    if difference := data_difference(before, now):
        raise ConfigError(
            f"{directory} cannot be resumed with other data than it began with: {difference}; expected the same data, "
            "or another run_dir for a new search"
        )


def _document(config: Any, given: bool) -> tuple[Mapping[str, Any], Source | None]:
    """Return a config as plain data, without what is filled in; with given data, its own files need not exist."""
    if isinstance(config, (str, Path)):
        return read_document(config, change=without_own_files if given else None)
    if isinstance(config, ResolvedConfig):
        return without_implied(config), config.source
    if not isinstance(config, Mapping):
        raise ConfigError(f"config is {type_name(config)}; expected the path of a YAML file, or sections as a dict")
    return config, None


def _has_own(document: Mapping[str, Any], directory: Any) -> bool:
    """Return whether a config without a task source can use the data that a run keeps."""
    tasks = document.get("tasks") or {}
    named = isinstance(tasks, Mapping) and any(key in tasks for key in ("source", "path", "train"))
    return isinstance(directory, (str, Path)) and not named and (Path(directory) / FILE).is_file()
