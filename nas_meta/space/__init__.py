"""Search spaces: choices, architectures, composite spaces, wrappers and supernets."""

from typing import TYPE_CHECKING

from nas_meta.core.lazy import lazy_exports

if TYPE_CHECKING:
    from nas_meta.core.options import PluginOptions as PluginOptions
    from nas_meta.space.architecture import Architecture as Architecture
    from nas_meta.space.architecture import Choice as Choice
    from nas_meta.space.architecture import Value as Value
    from nas_meta.space.search_space import SearchSpace as SearchSpace

_EXPORTS = {
    "Architecture": "nas_meta.space.architecture",
    "Choice": "nas_meta.space.architecture",
    "PluginOptions": "nas_meta.core.options",
    "SearchSpace": "nas_meta.space.search_space",
    "Value": "nas_meta.space.architecture",
}
__getattr__ = lazy_exports(__name__, _EXPORTS)
