"""From YAML to the parts of a search: sections, provenance, components, compatibility."""

from typing import TYPE_CHECKING

from nas_meta.core.lazy import lazy_exports

if TYPE_CHECKING:
    from nas_meta.config.json_schema import schema as schema
    from nas_meta.config.resolved import ResolvedConfig as ResolvedConfig
    from nas_meta.config.resolved import read_config as read_config
    from nas_meta.config.resolved import resolve as resolve
    from nas_meta.config.sections import PLUGIN_SECTIONS as PLUGIN_SECTIONS

_EXPORTS = {
    "PLUGIN_SECTIONS": "nas_meta.config.sections",
    "ResolvedConfig": "nas_meta.config.resolved",
    "read_config": "nas_meta.config.resolved",
    "resolve": "nas_meta.config.resolved",
    "schema": "nas_meta.config.json_schema",
}
__getattr__ = lazy_exports(__name__, _EXPORTS)
