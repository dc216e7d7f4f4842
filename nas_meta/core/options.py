"""Options of plugins: validated, and nothing unknown in them."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel, ConfigDict


class PluginOptions(BaseModel):
    """Base of every plugin's options: unknown keys and numbers without end are refused, defaults validated."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


def fields_at(model: type[BaseModel], path: tuple) -> set[str]:
    """The keys that a model has at a path into it."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
            else:
                model = next((a for a in get_args(annotation) if issubclass(a, BaseModel)), model)
    return set(model.model_fields)
