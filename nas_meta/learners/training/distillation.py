"""The options of distillation, without the code that trains: reading a config does not need torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from nas_meta.core.options import PluginOptions
from nas_meta.core.paths import ModelName


class Distillation(PluginOptions):
    """Options under ``learner.training.distill``; a number is the weight alone."""

    weight: float = Field(1.0, ge=0, description="loss weight of the distance to the teacher; 0 disables distillation")
    model: ModelName | None = Field(
        None, description="the teacher: a folder, a hub name, or starter:mpnet; by default the full model of the space"
    )
    trained: bool = Field(
        False,
        description="whether the teacher is meta-trained first, as the models of the search are; costs one training of "
        "the teacher per search",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_weight(cls, given: Any) -> Any:
        return {"weight": given} if isinstance(given, int | float) and not isinstance(given, bool) else given

    @model_serializer(mode="wrap")
    def _as_weight(self, dump: SerializerFunctionWrapHandler) -> Any:
        return dump(self) if self.model or self.trained else self.weight


def number_or_section(schema: dict[str, Any]) -> None:
    """Let the JSON schema of an option take a number in place of its section.

    Args:
        schema: The schema of the option, changed in place.
    """
    sections = [{"$ref": schema.pop("$ref")}] if "$ref" in schema else schema["anyOf"]
    schema["anyOf"] = [{"type": "number", "minimum": 0}, *sections]
