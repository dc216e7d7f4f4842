"""Paths of a config as absolute paths, so that a run means the same files wherever its commands are typed.

Paths in a config file start from the folder of the file; those of the command line and of Python data from the current
folder. The type of an option says that it holds paths: ``Path``, or a type with the mark :class:`NamesFiles`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

PLUGIN_FILE = ".py:"
DEFAULT_CORPUS = "default"  # never a file


class MisplacedPath(ValueError):
    """A path of a config file that does not exist beside the file, but in the current folder."""


def absolute(path: str | Path, *, folder: str | None = None) -> str:
    """Return a path as an absolute one, with ``~`` expanded.

    Args:
        path: The path.
        folder: Folder that a relative path starts from; by default the current folder.

    Returns:
        The absolute path; the file need not exist.

    Raises:
        MisplacedPath: There is nothing at a path from ``folder``, but there is something from the current folder.
    """
    expanded = os.path.expanduser(path)
    if folder is None:
        return os.path.abspath(expanded)
    placed = os.path.abspath(os.path.join(folder, expanded))
    if not _exists(placed) and _exists(expanded):
        raise MisplacedPath(
            f"'{path}' does not exist in the folder of the config, {folder}, but in the current folder; paths in a "
            f"config start from its folder: expected '{os.path.relpath(expanded, folder)}'"
        )
    return placed


def absolute_if_any(name: str, *, folder: str | None = None) -> str:
    """Return the absolute path of a file or folder; other names unchanged.

    Args:
        name: A path, or a name such as ``starter:minilm`` or one of the Hugging Face Hub; empty for none.
        folder: As in :func:`absolute`.

    Returns:
        The absolute path if the file or folder exists.

    Raises:
        MisplacedPath: As :func:`absolute`.
    """
    path = absolute(name, folder=folder) if name else ""
    return path if _exists(path) else name


def absolute_plugin(name: str, *, folder: str | None = None) -> str:
    """Return the name of a plugin or hook with the absolute path of its file.

    Args:
        name: ``path/to/file.py:Name``, or any other text.
        folder: As in :func:`absolute`.

    Returns:
        The name with the absolute path if the file exists; otherwise unchanged.

    Raises:
        MisplacedPath: As :func:`absolute`.
    """
    path, colon, attribute = name.rpartition(":")
    return f"{absolute_if_any(path, folder=folder)}{colon}{attribute}" if PLUGIN_FILE in name else name


def absolute_hook(hook: Any, *, folder: str | None = None) -> Any:
    """Return a hook with the absolute path of its file or command.

    Args:
        hook: Code as in :func:`absolute_plugin`; or a command with its arguments, which is on the ``PATH`` if it has no
            slash, whatever files the folder has. Other values are returned unchanged.
        folder: As in :func:`absolute`.

    Raises:
        MisplacedPath: As :func:`absolute`.
    """
    if isinstance(hook, str):
        return absolute_plugin(hook, folder=folder)
    command = isinstance(hook, list) and hook and isinstance(hook[0], str) and "/" in hook[0]
    return [absolute_if_any(hook[0], folder=folder), *hook[1:]] if command else hook


@dataclass(frozen=True)
class NamesFiles:
    """Marks the type of an option whose text names files.

    Args:
        place: Returns the text with absolute paths, from ``folder`` where they are relative.
        lists: Whether ``place`` takes lists of texts, too.
    """

    place: Callable[..., Any]
    lists: bool = False

    def takes(self, value: Any) -> bool:
        """Return whether a value is text, or a list of texts where these are possible."""
        texts = self.lists and isinstance(value, list) and all(isinstance(part, str) for part in value)
        return texts or isinstance(value, str)


def _exists(path: str | Path) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # a NUL character or a lone surrogate
        return False


def with_absolute_plugins(value: Any, *, folder: str | None = None) -> Any:
    """Return plain data with the absolute paths of all plugin files in it.

    Args:
        value: A section of a config, or a part of it.
        folder: As in :func:`absolute`.

    Returns:
        A copy.

    Raises:
        MisplacedPath: As :func:`absolute`.
    """
    if isinstance(value, str):
        return absolute_plugin(value, folder=folder)
    if isinstance(value, dict):
        return {key: with_absolute_plugins(inner, folder=folder) for key, inner in value.items()}
    return [with_absolute_plugins(inner, folder=folder) for inner in value] if isinstance(value, list) else value


def _corpus(given: str | list[str], *, folder: str | None = None) -> str | list[str]:
    if isinstance(given, str):
        return given if given == DEFAULT_CORPUS else absolute_if_any(given, folder=folder)
    return [absolute_if_any(name, folder=folder) for name in given]


ModelName = Annotated[str, NamesFiles(absolute_if_any), AfterValidator(absolute_if_any)]
"""Type of an option that names a model or tokenizer: a folder, or a name."""
CorpusPaths = Annotated[str | list[str], NamesFiles(_corpus, lists=True), AfterValidator(_corpus)]
"""Type of an option that names files and folders, or a name such as ``default``."""
