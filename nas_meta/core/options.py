"""The base class of plugin options, which makes every plugin refuse unknown keys in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, field_validator

from nas_meta.core.paths import absolute


@dataclass(frozen=True)
class NamesCode:
    """Marks the type of an option whose value names code that is executed; see :data:`CodeName`."""


CodeName = Annotated[str, NamesCode()]
"""Type of an option that names code, ``path/to/file.py:Name`` or ``package.module:Name``.

Give every option this type whose value leads to an import. A run directory from somebody else may name any code there,
so nas-meta asks before it validates such an option. The default of the option is trusted.
"""


class PluginOptions(BaseModel):
    """Base class of the options of every plugin.

    Unknown keys, infinite numbers and NaN are refused, and defaults are validated like given values. Values of the type
    ``Path`` become absolute: in a config file they start from the folder of the file, elsewhere from the current
    folder. Give every field a ``description``: help texts and the documentation show it.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _absolute_path(cls, value: Any) -> Any:
        return _with_absolute_paths(value)


def _with_absolute_paths(value: Any) -> Any:
    """Return a value whose paths are absolute, also those in lists, tuples and mappings."""
    if isinstance(value, Path):
        return Path(absolute(value))
    if type(value) in (list, tuple):
        return type(value)(map(_with_absolute_paths, value))
    return {key: _with_absolute_paths(inner) for key, inner in value.items()} if type(value) is dict else value


def fields_at(model: type[BaseModel], path: tuple[str | int, ...]) -> set[str]:
    """Return the keys that a model, or a model nested in it, accepts.

    Args:
        model: The outermost model.
        path: Keys and list indices that lead to the nested model, as in the ``loc`` of a pydantic error. Parts that
            name no field, such as indices, are skipped.

    Returns:
        The names of the fields of the model at the end of the path.
    """
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
            else:
                model = next((a for a in get_args(annotation) if issubclass(a, BaseModel)), model)
    return set(model.model_fields)


def code_names(model: type[BaseModel], document: Mapping[str, Any]) -> Iterator[str]:
    """Iterate over the code that a document names, without validating it: validation may already import the code.

    Args:
        model: Options model, or a section of the config.
        document: Its values as plain data; values of the wrong type are skipped.

    Yields:
        The value of every option of the type :data:`CodeName` that differs from the default, also in nested models,
        lists and mappings, and each value of a ``choice``.
    """
    for name, field in model.model_fields.items():
        aliases = {name, field.alias, field.validation_alias} & set(document)
        for key in map(str, aliases):
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            if document[key] != default:
                marks = (type(mark) is NamesCode for mark in field.metadata)
                yield from _code_in(field.annotation, document[key], any(marks))


def _code_in(kind: Any, value: Any, marked: bool = False) -> Iterator[str]:
    """Iterate over the code that a value of a type names."""
    if marked and isinstance(value, str):
        yield value
    if isinstance(value, Mapping) and "choice" in value:
        yield from _code_in(kind, value["choice"], marked)
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _code_in(kind, inner, marked)
    elif isinstance(value, Mapping) and isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from code_names(kind, value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _code_in(kind, inner, marked)
    if hasattr(kind, "code_names"):
        yield from kind.code_names(value)
    marks = getattr(kind, "__metadata__", ())
    for argument in get_args(kind):
        if argument not in marks:
            yield from _code_in(argument, value, marked or any(type(mark) is NamesCode for mark in marks))
