"""Environment variables in a config: ``${NAME}`` in a hook or in ``resources.address`` keeps a secret out of files.

The config keeps the reference, and so do the journal, ``config.yaml`` and all monitors; the value is read when it is
used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nas_meta.errors import ConfigError

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
PROGRAM = "-c"  # the next argument is a program, whose interpreter reads the environment itself


def expanded(text: str, key: str) -> str:
    """Return a text with the values of the environment variables that it names.

    Args:
        text: Text with references such as ``${RAY_ADDRESS}``.
        key: Key of the config, for the error.

    Returns:
        The text, which must not be written anywhere.

    Raises:
        ConfigError: A variable is not set.
    """
    for name in REFERENCE.findall(text):
        if name not in os.environ:
            raise ConfigError(
                f"{key} names the environment variable {name}, which is not set; expected export {name}=…"
            )
    return REFERENCE.sub(lambda match: os.environ[match[1]], text)


def expanded_command(command: Sequence[str], key: str) -> list[str]:
    """Return a command with the values of environment variables in its arguments.

    Args:
        command: The command. An argument after ``-c``, such as a shell script, stays as it is.
        key: Key of the config, for the error.

    Returns:
        The command, which must not be written anywhere.

    Raises:
        ConfigError: A variable is not set.
    """
    before = ["", *command]
    return [text if last == PROGRAM else expanded(text, key) for last, text in zip(before, command, strict=False)]


def concealed(text: str, source: str) -> str:
    """Return a text in which the values of environment variables are references again.

    Args:
        text: Text such as an error message.
        source: The text of the config with references.
    """
    values = {os.environ.get(name, ""): name for name in REFERENCE.findall(source)}
    for value in sorted(filter(None, values), key=len, reverse=True):
        text = text.replace(value, f"${{{values[value]}}}")
    return text


def shareable(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without hooks, monitors and the address of the cluster, for files that others see.

    Args:
        document: The config as plain data.
    """
    public = {name: section for name, section in document.items() if name != "watching"}
    if isinstance(public.get("resources"), Mapping):
        public["resources"] = {name: value for name, value in public["resources"].items() if name != "address"}
    return public
