"""Where a value of a config stands, values set on the command line, and the sentence about a wrong value."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from nas_meta.errors import ConfigError, nearest


class Source:
    """Where a value stands: turns a key path into ``file:line``."""

    def __init__(self, name: str, text: str = "", overridden: Sequence[str] = ()):
        self.name = name
        self.lines: dict[tuple, int] = {}
        self.overridden = set(overridden)
        if text:
            self._walk(yaml.compose(text, Loader=yaml.SafeLoader), ())

    def _walk(self, node: yaml.Node | None, path: tuple) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*path, key.value)
                self.lines[here] = key.start_mark.line + 1
                self._walk(value, here)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.lines[(*path, index)] = value.start_mark.line + 1
                self._walk(value, (*path, index))

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
        try:
            target[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: the value is not YAML") from error
        if isinstance(target[last], str):
            # YAML 1.1 reads 1e-4 as a string
            try:
                target[last] = float(target[last])
            except ValueError:
                continue
    return result


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
        known = _fields_at(model, error["loc"][:-1]) | also
        return f"'{name}' is not a known key; {nearest(str(path[-1]), known)}"
    if error["type"] == "missing":
        return f"'{name}' is missing"
    expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{name}: {expected}"
    return f"{name} is {error['input']!r}; expected {expected}"


def _fields_at(model: type[BaseModel], path: tuple) -> set[str]:
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
            else:
                model = next((a for a in get_args(annotation) if issubclass(a, BaseModel)), model)
    return set(model.model_fields)
