"""The base class of plugin options, which makes every plugin refuse unknown keys in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, field_validator

from nas_meta.core.paths import absolute


class PluginOptions(BaseModel):
    """Base class of the options of every plugin.

    Unknown keys, infinite numbers and NaN are refused, and defaults are validated like given values. Values of the type
    ``Path`` become absolute. Give every field a ``description``: help texts and the documentation show it.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _absolute_path(cls, value: Any) -> Any:
        return Path(absolute(value)) if isinstance(value, Path) else value


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
