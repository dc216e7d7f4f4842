"""What is asked of a plugin: whatever it raises becomes one sentence that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nas_meta.errors import NasMetaError, PluginError


@contextmanager
def plugin_call(plugin: Any, method: str) -> Iterator[None]:
    """Around a call of a plugin's method in the driver; a trial's own failures are the engine's.

    Raises:
        PluginError: it raised something else than a sentence.
    """
    try:
        yield
    except NasMetaError:
        raise
    except (Exception, SystemExit) as error:
        name = plugin.__name__ if isinstance(plugin, type) else type(plugin).__name__
        words = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
        raise PluginError(f"{name}.{method}() raised {said}") from error


def type_name(value: Any) -> str:
    """What a sentence calls a value of a wrong type."""
    return "None" if value is None else f"a {type(value).__name__}"
