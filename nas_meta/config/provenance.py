"""Where a value of a config stands, values set on the command line, and the sentence about a wrong value."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from nas_meta.config.yaml_loader import DEEPEST, read_yaml
from nas_meta.core.options import fields_at
from nas_meta.errors import ConfigError, nearest


class Source:
    """Where a value stands: turns a key path into ``file:line``.

    Args:
        lines: of every key path of the file.
        overridden: key paths that the command line set.
    """

    def __init__(self, name: str, lines: Mapping[tuple, int] | None = None, overridden: Sequence[str] = ()):
        self.name = name
        self.lines = lines or {}
        self.overridden = set(overridden)

    def at(self, path: tuple) -> str:
        """``file:line`` of the deepest part of the path that the file has."""
        if ".".join(map(str, path)) in self.overridden:
            return "--set"
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        return self.name


def apply_overrides(document: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The document with every ``section.key=value`` set; values are YAML."""
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
            # YAML 1.1 reads 1e-4 as a string
            try:
                target[last] = float(target[last])
            except ValueError:
                continue
    return result


def check_plain(value: Any, source: Source, path: tuple = ()) -> None:
    """Raises ConfigError where a config given as data has keys that are no text, or is nested without end."""
    if len(path) > DEEPEST:
        raise ConfigError(f"{source.at(path)}: values are nested deeper than {DEEPEST} times; expected sections")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                name = ".".join((*path, repr(key)))
                raise ConfigError(f"{source.at(path)}: the key {name} is a {type(key).__name__}; expected text")
            check_plain(inner, source, (*path, key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check_plain(inner, source, (*path, "-"))


def validate(model: type[BaseModel], data: Mapping[str, Any], source: Source, prefix: tuple, also: set[str]) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = (*prefix, *first["loc"])
        raise ConfigError(f"{source.at(path)}: {_sentence(model, first, path, also)}") from error


def _sentence(model: type[BaseModel], error: Mapping[str, Any], path: tuple, also: set[str]) -> str:
    name = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        known = fields_at(model, error["loc"][:-1]) | (also if len(error["loc"]) == 1 else set())
        return f"'{name}' is not a known key; {nearest(str(path[-1]), known)}"
    if error["type"] == "unknown_key":  # of a space that an option names
        return f"'{name}' is not a known key; {error['msg']}"
    if error["type"] == "missing":
        return f"'{name}' is missing"
    expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{name}: {expected}"
    return f"{name} is {error['input']!r}; expected {expected}"
