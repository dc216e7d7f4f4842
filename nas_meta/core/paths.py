"""Paths of a config as absolute paths, so that a run means the same files wherever its commands are typed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

PLUGIN_FILE = ".py:"
DEFAULT_CORPUS = "default"  # never a file


def absolute(path: str | Path) -> str:
    """Return a path as an absolute one, with ``~`` expanded.

    Args:
        path: The path, relative to the current folder.

    Returns:
        The absolute path; the file need not exist.
    """
    return os.path.abspath(os.path.expanduser(path))


def absolute_if_any(name: str) -> str:
    """Return the absolute path of a file or folder; other names unchanged.

    Args:
        name: A path, or a name such as ``starter:minilm`` or one of the Hugging Face Hub.

    Returns:
        The absolute path if the file or folder exists.
    """
    try:
        return absolute(name) if os.path.exists(os.path.expanduser(name)) else name
    except ValueError:  # a NUL character or a lone surrogate
        return name


def absolute_plugin(name: str) -> str:
    """Return the name of a plugin or hook with the absolute path of its file.

    Args:
        name: ``path/to/file.py:Name``, or any other text.

    Returns:
        The name with the absolute path if the file exists; otherwise unchanged.
    """
    path, colon, attribute = name.rpartition(":")
    return f"{absolute_if_any(path)}{colon}{attribute}" if PLUGIN_FILE in name else name


def with_absolute_plugins(value: Any) -> Any:
    """Return plain data with the absolute paths of all plugin files in it.

    Args:
        value: A section of a config, or a part of it.

    Returns:
        A copy.
    """
    if isinstance(value, str):
        return absolute_plugin(value)
    if isinstance(value, dict):
        return {key: with_absolute_plugins(inner) for key, inner in value.items()}
    return [with_absolute_plugins(inner) for inner in value] if isinstance(value, list) else value


def _corpus(given: str | list[str]) -> str | list[str]:
    if isinstance(given, str):
        return given if given == DEFAULT_CORPUS else absolute_if_any(given)
    return [absolute_if_any(name) for name in given]


ModelName = Annotated[str, AfterValidator(absolute_if_any)]
"""Type of an option that names a model or tokenizer: a folder, or a name."""
CorpusPaths = Annotated[str | list[str], AfterValidator(_corpus)]
"""Type of an option that names files and folders, or a name such as ``default``."""
