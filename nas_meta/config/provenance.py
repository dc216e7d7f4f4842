"""Where every config value comes from, a line of a file or ``--set``, so that error messages can point to it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from nas_meta.config.yaml_loader import DEEPEST, read_yaml
from nas_meta.core.options import fields_at
from nas_meta.errors import ConfigError, nearest


class Source:
    """The origin of a config: turns the path of a value into ``file:line``.

    Args:
        name: Name of the file, or any other name of the origin.
        lines: Line of every value by its path, as :func:`read_yaml` returns it.
        overridden: Dotted paths, such as ``learner.lr``, that ``--set`` changed.
    """

    def __init__(self, name: str, lines: Mapping[tuple, int] | None = None, overridden: Sequence[str] = ()):
        self.name = name
        self.lines = lines or {}
        self.overridden = set(overridden)

    def at(self, path: tuple) -> str:
        """Return where a value was given.

        Args:
            path: Keys and list indices that lead to the value.

        Returns:
            ``--set`` for a value from the command line; otherwise ``file:line`` of the value, or of the section around
            it if the file leaves the value out, or just the name of the file.
        """
        key = ".".join(map(str, path))
        if key in self.overridden:
            return "--set"
        if path not in self.lines and any(name.startswith(f"{key}.") for name in self.overridden):
            return "--set"  # a section that only the command line has
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        return self.name


def apply_overrides(document: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply the ``--set`` options of the command line to a config.

    Args:
        document: The config as plain data; it is not modified.
        overrides: Texts such as ``learner.lr=1e-4``, applied in order. The value is YAML; missing sections are created.

    Returns:
        A copy of the document with the values set.

    Raises:
        ConfigError: An override has no ``=`` or no key, its value is not YAML, or its path leads through a scalar.
    """
    result = copy.deepcopy(dict(document))
    for override in overrides:
        path, equals, value = override.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {override}: expected section.key=value")
        *parents, last = path.split(".")
        target = result
        for parent in parents:
            if target.get(parent) is None:
                target[parent] = {}
            target = target[parent]
            if not isinstance(target, dict):
                raise ConfigError(f"--set {override}: '{parent}' has no keys")
        target[last], _ = read_yaml(value, f"--set {override}")
        if isinstance(target[last], str):
            # YAML 1.1 reads 1e-4, without a decimal point, as text.
            try:
                target[last] = float(target[last])
            except ValueError:
                continue
    return result


def check_plain(value: Any, source: Source, path: tuple = ()) -> None:
    """Check a config that was given as Python data, which may hold what YAML could not.

    Args:
        value: The config, or a part of it.
        source: Origin of the config, for error messages.
        path: Path of the part within the config.

    Raises:
        ConfigError: A key is not text, or values are nested too deeply or in a cycle.
    """
    if len(path) > DEEPEST:
        raise ConfigError(f"{source.at(path)}: values are nested deeper than {DEEPEST} levels; expected sections")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                name = ".".join((*path, repr(key)))
                raise ConfigError(f"{source.at(path)}: the key {name} is a {type(key).__name__}; expected text")
            check_plain(inner, source, (*path, key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check_plain(inner, source, (*path, "-"))


def validate(model: type[BaseModel], data: Mapping[str, Any], source: Source, prefix: tuple, extra: set[str]) -> Any:
    """Validate a section against its model.

    Args:
        model: The pydantic model.
        data: The section as plain data.
        source: Origin of the config, for error messages.
        prefix: Path of the section within the config.
        extra: Further keys that the section accepts, for suggestions after a misspelt key.

    Returns:
        An instance of ``model``.

    Raises:
        ConfigError: The data does not fit the model. The message names the first wrong value, where it was given and
            what was expected.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = (*prefix, *first["loc"])
        raise ConfigError(f"{source.at(path)}: {_sentence(model, first, path, extra)}") from error


def _sentence(model: type[BaseModel], error: Mapping[str, Any], path: tuple, extra: set[str]) -> str:
    """Turn one error of pydantic into a sentence that names the key and what was expected."""
    name = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        known = fields_at(model, error["loc"][:-1]) | (extra if len(error["loc"]) == 1 else set())
        return f"'{name}' is not a known key; {nearest(str(path[-1]), known)}"
    if error["type"] == "unknown_key":  # in the options of a space that is itself an option
        return f"'{name}' is not a known key; {error['msg']}"
    if error["type"] == "missing":
        return f"'{name}' is missing"
    if error["type"] == "model_type":
        keys = sorted(fields_at(model, error["loc"]))
        return f"{name} is {error['input']!r}; expected keys such as {', '.join(keys[:3])}"
    expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{name}: {expected}" if name else expected
    return f"{name} is {error['input']!r}; expected {expected}"
