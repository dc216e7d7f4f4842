"""The config reference, generated from the JSON Schema: every section and the options of every plugin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nas_meta.config.sections import PLUGIN_SECTIONS
from nas_meta.core import plugins

Schema = Mapping[str, Any]
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
KINDS = {
    "string": "text", "integer": "a whole number", "number": "a number", "boolean": "`true` or `false`",
    "null": "nothing", "object": "keys",
}  # fmt: skip


def configuration_page(document: Schema) -> str:
    """Return the config reference, which is appended to ``docs/configuration.md``.

    Args:
        document: JSON Schema of a config, as ``nas-meta config --schema`` prints it.

    Returns:
        Markdown with one heading per section, one per plugin, and a table of keys below each.
    """
    return "\n".join(_sections(document))


def _sections(document: Schema) -> Iterator[str]:
    plain = {n: p for n, p in document["properties"].items() if not _models(p, document)}
    for name, section in document["properties"].items():
        if name in plain:
            continue
        yield f"## {name}\n"
        models = _models(section, document)
        shared = _shared(list(models.values()))
        kind, key = PLUGIN_SECTIONS[name][1:] if name in PLUGIN_SECTIONS else ("", "name")
        summaries = {row.name: row.summary for row in plugins.installed(kind)} if kind else {}
        if kind:
            yield f"`{key}` is a name below or `path/to/file.py:Name`; the plugin's options are keys of this section.\n"
        yield from _table({"properties": shared}, document)
        for plugin, model in models.items() if len(models) > 1 else ():
            plugin = model["properties"][key].get("const", plugin)
            yield f"### {name}: {plugin}\n"
            if summary := summaries.get(plugin):
                yield f"{summary}\n"
            own = {k: v for k, v in model["properties"].items() if k not in (key, *shared)}
            yield from _table({"properties": own}, document)
    yield "## Top-level keys\n"
    yield from _table({"properties": plain}, document)


def _shared(models: Sequence[Schema]) -> Schema:
    """Return the properties that all models share with equal schemas."""
    first, *others = (model["properties"] for model in models)
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _models(section: Schema, document: Schema) -> dict[str, Schema]:
    """Return the models of a section by title: one per plugin if the section holds the options of a plugin."""
    parts = [section, *section.get("anyOf", ()), *section.get("items", {}).get("anyOf", ()), section.get("items", {})]
    parts += [inner for part in section.get("anyOf", ()) for inner in part.get("anyOf", ())]  # it may also be a choice
    refs = [part["$ref"].rpartition("/")[2] for part in parts if "$ref" in part]
    known = {ref: document["$defs"][ref] for ref in refs if not ref.endswith("-file")}
    return {ref: model for ref, model in known.items() if "properties" in model}


def _table(model: Schema, document: Schema, prefix: str = "") -> Iterator[str]:
    """Yield a Markdown table with one row per key, or nothing if there are no keys."""
    rows = list(_rows(model, document, prefix))
    if rows:
        yield "| key | value | default | |\n| --- | --- | --- | --- |"
        yield from rows
        yield ""


def _rows(model: Schema, document: Schema, prefix: str = "") -> Iterator[str]:
    """Yield the rows of a table; nested sections become dotted keys such as ``training.decay``."""
    for key, value in model["properties"].items():
        inner = [m for m in _models(value, document).values() if "items" not in value]
        if len(inner) == 1:
            yield from _rows(inner[0], document, f"{prefix}{key}.")
            continue
        chosen = next((part for part in value.get("anyOf", ()) if set(part.get("required", ())) == {"choice"}), None)
        value = value["anyOf"][0] if chosen else value
        default = f"`{json.dumps(value['default'], ensure_ascii=False)}`" if "default" in value else ""
        kind = _kind(value, document) + ", may be a choice" * bool(chosen)
        cells = (f"`{prefix}{key}`", kind, default, value.get("description", ""))
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _kind(value: Schema, document: Schema) -> str:
    """Return the type and the bounds of a value in words, such as ``a whole number ≥ 1``."""
    if "$ref" in value:
        return _kind(document["$defs"][value["$ref"].rpartition("/")[2]], document)
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_kind(part, document) for part in value["anyOf"]))
    if "const" in value or "enum" in value:
        return " or ".join(f"`{v}`" for v in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        listed = _kind(value["items"], document) if value.get("items") else ""
        plural = {"a number": "numbers", "a whole number": "whole numbers", "text": "texts"}.get(listed, listed)
        return f"a list of {plural}" if plural else f"{value.get('maxItems', 'a list of')} values"
    kind = KINDS.get(value.get("type", ""), "anything")
    bounds = [f"{sign} {value[bound]:g}" for bound, sign in BOUNDS.items() if bound in value]
    return f"{kind} {', '.join(bounds)}" if bounds else kind
