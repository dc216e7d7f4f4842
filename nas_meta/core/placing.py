"""Finds the paths in a document by the types of its model, and makes them absolute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.fields import FieldInfo

from nas_meta.core.paths import MisplacedPath, NamesFiles, absolute

CHOICE = "choice"


class Misplaced(ValueError):
    """A path that does not exist in the folder where it should be.

    Args:
        path: Keys and list indices that lead to the value.
        problem: What is wrong with it.
    """

    def __init__(self, path: tuple[str | int, ...], problem: str):
        super().__init__(problem)
        self.path = path


def placed(
    model: type[BaseModel], document: Mapping[str, Any], folder: str, path: tuple[str | int, ...] = ()
) -> dict[str, Any]:
    """Return a document with absolute paths.

    Paths are the values of fields of the type ``Path`` or with the mark :class:`~nas_meta.core.paths.NamesFiles`, also
    in nested models, lists and mappings, and each value of a ``choice``.

    Args:
        model: Options model, or a section of the config.
        document: Its values as plain data; values of the wrong type are left as they are.
        folder: Folder that relative paths start from.
        path: Keys that lead to the document, for errors.

    Returns:
        A copy.

    Raises:
        Misplaced: There is nothing at a path, but there is something at the same path from the current folder.
    """
    result = dict(document)
    for name, field in model.model_fields.items():
        for key in _keys(name, field) & set(document):
            result[key] = _placed(field.annotation, field.metadata, document[key], folder, (*path, key))
    return result


def _keys(name: str, field: FieldInfo) -> set[str]:
    """Return the keys under which a document may hold a field."""
    alias = field.validation_alias
    aliases = alias.choices if isinstance(alias, AliasChoices) else [alias]
    aliases = [a.path[0] if isinstance(a, AliasPath) and len(a.path) == 1 else a for a in aliases]
    return {key for key in (name, field.alias, *aliases) if isinstance(key, str)}


def _placed(kind: Any, marks: Any, value: Any, folder: str, path: tuple[str | int, ...]) -> Any:
    """Return a value of a type, with its marks, with absolute paths."""
    if isinstance(value, Mapping) and CHOICE in value and isinstance(value[CHOICE], list):
        choices = [_placed(kind, marks, v, folder, path) for v in value[CHOICE]]
        return {**value, CHOICE: choices}
    places: list[Any] = [mark.place for mark in marks if isinstance(mark, NamesFiles) and mark.takes(value)]
    if kind is Path and isinstance(value, str):
        places.append(absolute)
    try:
        for place in places:
            value = place(value, folder=folder)
        if hasattr(kind, "placed"):
            return kind.placed(value, folder, path)
    except MisplacedPath as error:
        raise Misplaced(path, str(error)) from error
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return placed(kind, value, folder, path) if isinstance(value, Mapping) else value
    own = getattr(kind, "__metadata__", ())
    for argument in get_args(kind):
        if argument in own:
            continue
        if own or get_origin(kind) in (Union, UnionType):
            value = _placed(argument, own, value, folder, path)
        elif isinstance(value, list):
            value = [_placed(argument, (), inner, folder, (*path, i)) for i, inner in enumerate(value)]
        elif isinstance(value, Mapping):
            value = {key: _placed(argument, (), inner, folder, (*path, key)) for key, inner in value.items()}
    return value
