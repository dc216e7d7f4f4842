"""Search spaces: choices, architectures, composite spaces, wrappers, supernets. Pure data and models, no training."""

from nas_meta.core.lazy import lazy_exports

_EXPORTS = {
    "Architecture": "nas_meta.space.architecture",
    "Choice": "nas_meta.space.architecture",
    "PluginOptions": "nas_meta.core.options",
    "SearchSpace": "nas_meta.space.search_space",
    "Value": "nas_meta.space.architecture",
}
__getattr__ = lazy_exports(__name__, _EXPORTS)
