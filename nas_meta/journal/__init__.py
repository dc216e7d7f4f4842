"""The durable record of a search: the SQLite journal and its rows, the run directory, leaderboard and status."""

from typing import TYPE_CHECKING

from nas_meta.core.lazy import lazy_exports

if TYPE_CHECKING:
    from nas_meta.journal.database import Journal as Journal
    from nas_meta.journal.records import Trial as Trial

_EXPORTS = {
    "Journal": "nas_meta.journal.database",
    "Trial": "nas_meta.journal.records",
}
__getattr__ = lazy_exports(__name__, _EXPORTS)
