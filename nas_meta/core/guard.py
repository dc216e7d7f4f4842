"""Error boundary for plugin calls: any exception becomes one sentence that names the plugin and the method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nas_meta.errors import NasMetaError, PluginError


@contextmanager
def plugin_call(plugin: Any, method: str) -> Iterator[None]:
    """Turn any exception of a plugin's method into a :class:`PluginError`.

    For calls on the driver. Exceptions inside a trial are caught by the engine, and only fail that trial.

    Args:
        plugin: The plugin's instance or class; the message names the class.
        method: Name of the method that is called.

    Yields:
        Nothing; call the method inside the ``with`` block.

    Raises:
        NasMetaError: The method raised one; it passes unchanged, because its message is a sentence already.
        PluginError: The method raised any other exception, or ``SystemExit``.
    """
    try:
        yield
    except NasMetaError:
        raise
    except (Exception, SystemExit) as error:
        name = plugin.__name__ if isinstance(plugin, type) else type(plugin).__name__
        raise PluginError(f"{name}.{method}() raised {first_line(error)}") from error


def first_line(error: BaseException, with_type: bool = True) -> str:
    """Return an exception as one line: the name of its class and the first line of its message.

    For example ``ValueError: bad shape``. The message of a :class:`NasMetaError` is a full sentence, so the name of its
    class is left out.

    Args:
        error: Any exception. Its message may span several lines, such as a traceback from a worker, or be empty.
        with_type: Whether the line starts with the name of the class; set it to ``False`` if the sentence around the
            line already says what failed.

    Returns:
        The line, without leading or trailing white space. An exception without a message gives
        ``ValueError: no message``, or ``ValueError`` if ``with_type`` is ``False``.
    """
    name = type(error).__name__
    lines = str(error).strip().splitlines()
    if not with_type:
        return lines[0] if lines else name
    # By name: Ray re-raises an exception of a worker as a class that it derives from the original one.
    is_sentence = any(c.__name__ == "NasMetaError" for c in type(error).__mro__)
    message = lines[0] if lines else "no message"
    return message if is_sentence else f"{name}: {message}"


def type_name(value: Any) -> str:
    """Return how an error message names the type of a value.

    Args:
        value: Any value.

    Returns:
        ``"None"``, or the class with an article, such as ``"a list"``.
    """
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
