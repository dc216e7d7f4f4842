"""One search on the driver: its phases, the trial loop, proposals, jobs, the final test, sessions."""

from typing import TYPE_CHECKING

from nas_meta.core.lazy import lazy_exports

if TYPE_CHECKING:
    from nas_meta.controller.launch import resume as resume
    from nas_meta.controller.launch import search as search

_EXPORTS = {
    "resume": "nas_meta.controller.launch",
    "search": "nas_meta.controller.launch",
}
__getattr__ = lazy_exports(__name__, _EXPORTS)
