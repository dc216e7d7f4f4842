"""The JSON Schema of config files, from which editors complete and check them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, create_model

from nas_meta.config.sections import PLUGIN_SECTIONS, Config
from nas_meta.core import plugins
from nas_meta.evaluation.hyperparameters import CHOICE, TASK_CHOICES


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a config.

    Returns:
        The schema, with the options of every installed plugin that can be imported. A section that names any other
        plugin, such as one in a file, accepts arbitrary further keys.
    """
    fields: dict[str, Any] = {}
    for section, (model, kind, key) in PLUGIN_SECTIONS.items():
        variants = []
        for row in plugins.installed(kind):
            if row.broken is None:
                option_model = plugins.options_of(kind, row.name)
                variant = create_model(
                    f"{section}-{row.name}",
                    __base__=(option_model, model),
                    **{key: (Literal[row.name], row.name)},
                )
                variants.append(variant)
        union = variants[0]
        for variant in variants[1:]:
            union = union | variant
        anything = create_model(f"{section}-file", __config__=ConfigDict(extra="allow"), **{key: (str, ...)})
        fields[section] = (union | anything, Field(default_factory=dict))
    fields["stopping"] = (str | fields["stopping"][0], Field("none"))  # the name of a rule alone, or its section
    document = create_model("Config", __base__=Config, **fields).model_json_schema()
    _allow_choices(document)
    return document


def _allow_choices(document: dict[str, Any]) -> None:
    """Allow ``{choice: [...]}`` in place of a value: everywhere under ``learner`` and for some keys under ``tasks``."""
    for name, definition in document["$defs"].items():
        section, _, plugin = name.partition("-")
        searchable = section == "learner" or name == "TrainingOptions"
        for key, value in definition.get("properties", {}).items():
            named = key == PLUGIN_SECTIONS.get(section, ("", "", ""))[2] and plugin != "file"
            if (searchable and not named) or (section == "tasks" and key in TASK_CHOICES):
                choice = {"type": "array", "items": dict(value), "minItems": 1}
                listed = {"type": "object", "properties": {CHOICE: choice}, "required": [CHOICE]}
                definition["properties"][key] = {"anyOf": [value, {**listed, "additionalProperties": False}]}
