"""Why a search has failed: no trial was completed, or the same failure came again and again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from nas_meta.journal.leaderboard import Leaderboard


def repeats_itself(board: Leaderboard, earlier: Mapping[str, int], most: int | None) -> bool:
    """Return whether trials only fail, and for the same reason: further ones would, too.

    Reasons that differ only in numbers, such as the size of a tensor, are the same.

    Args:
        board: The trials of the search.
        earlier: The number of failures by reason in earlier sessions; they may have been mended since.
        most: The number of identical failures that end a search; None for no limit.
    """
    if most is None or board.counts["completed"] or board.counts["stopped"]:
        return False
    kinds: Counter[str] = Counter()
    for reason, count in board.failures.items():
        kinds[re.sub(r"\d+", "#", reason)] += count - earlier.get(reason, 0)
    return max(kinds.values(), default=0) >= most


def failure_reason(board: Leaderboard, directory: Path, repeated: bool) -> str | None:
    """Return why a search that ran to its end has failed all the same.

    Args:
        board: The trials of the search.
        directory: The run directory, for the command that shows the log.
        repeated: Whether the search ended early because of identical failures.

    Returns:
        The sentence; None if a trial was completed.
    """
    if board.leader is not None:
        return None
    if board.trials and board.counts["stopped"] == len(board.trials):
        return (
            f"no trial was completed: all {len(board.trials)} were stopped early; "
            "expected a stopping rule that stops fewer"
        )
    first = next((t for t in board.trials.values() if t.error), None)
    if first is None:
        return (
            "no trial was completed, because none was started; expected a strategy that proposes an architecture, and "
            "a budget.hours that is long enough for a trial, if it is set"
        )
    early = ""
    if repeated:
        early = f"; all {board.finished} failed alike, and the search ended early (budget.max_identical_failures)"
    return (
        f"no trial was completed; the first one failed because {first.error}{early}; "
        f"'nas-meta logs {directory} {first.id}' prints its log"
    )
