"""YAML as plain data: text keys, scalars, lists and mappings, and the line of each; nothing is made but these.

PyYAML's own constructors raise whatever they like on bad scalars, and expand aliases without a limit.
"""

from __future__ import annotations

from typing import Any

import yaml

from nas_meta.errors import ConfigError

DEEPEST = 50
MOST_VALUES = 50_000  # with every alias expanded
TAG = "tag:yaml.org,2002:"
SCALARS = ("null", "bool", "int", "float", "str")


class _Loader(yaml.SafeLoader):
    """What looks like a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  as PyYAML has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(text: str, name: str) -> tuple[Any, dict[tuple, int]]:
    """The document, and the line of every key path in it.

    Raises:
        ConfigError: it is not YAML, or more than plain data; the sentence names ``name`` and the line.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise ConfigError(f"{where}: not YAML ({problem})") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: not YAML (nested deeper than {DEEPEST} times)") from error
    reader = _Reader(name, loader)
    return (None if node is None else reader.value(node, ())), reader.lines


class _Reader:
    def __init__(self, name: str, loader: yaml.SafeLoader):
        self.name, self.loader = name, loader
        self.lines: dict[tuple, int] = {}
        self.left = MOST_VALUES

    def value(self, node: yaml.Node, path: tuple) -> Any:
        self.left -= 1
        if self.left < 0:
            raise self._wrong(node, f"more than {MOST_VALUES:,} values, with aliases expanded")
        if len(path) > DEEPEST:
            raise self._wrong(node, f"nested deeper than {DEEPEST} times")
        if isinstance(node, yaml.ScalarNode) and node.tag in [TAG + tag for tag in SCALARS]:
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{TAG}seq":
            return [self._at((*path, index), each, each) for index, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == f"{TAG}map":
            return self._mapping(node, path)
        raise self._wrong(node, f"the tag {node.tag}")

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self.loader.construct_object(node)
        except (ValueError, LookupError) as error:
            raise self._wrong(node, f"a value that is no {node.tag.removeprefix(TAG)}") from error

    def _mapping(self, node: yaml.MappingNode, path: tuple) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == f"{TAG}merge":
                parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for part in parts:
                    inner = self.value(part, (*path, "<<"))
                    if not isinstance(inner, dict):
                        raise self._wrong(part, "a merge of what has no keys")
                    merged = inner | merged  # the first that has a key wins
            elif not isinstance(key, yaml.ScalarNode) or key.tag != f"{TAG}str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                raise self._wrong(key, f"the key {shown}, which is no text")
            elif key.value in own:
                raise self._wrong(key, f"the key '{key.value}' a second time")
            else:
                own[key.value] = self._at((*path, key.value), key, value)
        return merged | own

    def _at(self, path: tuple, where: yaml.Node, node: yaml.Node) -> Any:
        self.lines[path] = where.start_mark.line + 1
        return self.value(node, path)

    def _wrong(self, node: yaml.Node, what: str) -> ConfigError:
        return ConfigError(f"{self.name}:{node.start_mark.line + 1}: not YAML of plain values ({what})")
