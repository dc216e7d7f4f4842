"""The decisions of a search: the ask-and-tell protocol of strategies, the prefilter, and stopping rules."""

from typing import TYPE_CHECKING

from nas_meta.core.lazy import lazy_exports

if TYPE_CHECKING:
    from nas_meta.strategy.protocol import WAIT as WAIT
    from nas_meta.strategy.protocol import Adapted as Adapted
    from nas_meta.strategy.protocol import Job as Job
    from nas_meta.strategy.protocol import Outcome as Outcome
    from nas_meta.strategy.protocol import SearchContext as SearchContext
    from nas_meta.strategy.protocol import Strategy as Strategy
    from nas_meta.strategy.protocol import Wait as Wait

_EXPORTS = {
    "Adapted": "nas_meta.strategy.protocol",
    "Job": "nas_meta.strategy.protocol",
    "Outcome": "nas_meta.strategy.protocol",
    "SearchContext": "nas_meta.strategy.protocol",
    "Strategy": "nas_meta.strategy.protocol",
    "WAIT": "nas_meta.strategy.protocol",
    "Wait": "nas_meta.strategy.protocol",
}
__getattr__ = lazy_exports(__name__, _EXPORTS)
