"""Progress of a search in a notebook: one output cell that is updated, without widgets."""

from __future__ import annotations

import html
import sys
from typing import Any

from nas_meta.errors import one_line
from nas_meta.journal.status import Status
from nas_meta.outputs.report.formatting import trial_line
from nas_meta.outputs.report.live import SHOWN, bar_of, progress, summary

EVERY = 0.5  # least seconds between two updates in the same phase: each is a message to the browser


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, such as Jupyter or Colab."""
    module = sys.modules.get("IPython")  # imported by every kernel
    shell = module.get_ipython() if module is not None else None
    return shell is not None and hasattr(shell, "kernel")


class NotebookProgress:
    """Progress of a search as an output of a notebook cell, which stays with the last state.

    Use it as a context manager and call it with each :class:`~nas_meta.journal.status.Status`.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._phase, self._drawn_at = "", 0.0

    def __enter__(self) -> NotebookProgress:
        return self

    def __exit__(self, *_: Any) -> None:
        """Leave the last state in the notebook."""

    def __call__(self, status: Status) -> None:
        if status.phase == self._phase and status.written - self._drawn_at < EVERY and not status.over:
            return
        from IPython.display import display

        self._phase, self._drawn_at = status.phase, status.written
        shown = {"text/html": as_html(status), "text/plain": summary(status).line()}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


def as_html(status: Status) -> str:
    """Return the progress of a search as HTML.

    Args:
        status: Status of the search.
    """
    board = status.leaderboard
    done, total = bar_of(status)
    # Without a value, the bar shows only that something happens.
    share = f' value="{min(done, total)}" max="{total}"' if total else ""
    head = summary(status)
    lines = [f"<b>{_text(head.phase)}</b> {_text(head.line().removeprefix(head.phase).removesuffix(head.running))}"]
    if not status.over or done:
        lines.append(f'<progress{share} style="width: 30em"></progress>')
    if board.leader is not None:
        lines.append(f"best so far: {_text(trial_line(board.leader, board.metrics))}")
    if not status.over:
        lines += [f"trial {t.id}: {_text(progress(status, t))}" for t in list(board.running.values())[:SHOWN]]
    lines += [_text(line) for line in (*status.data_report, status.error, *status.troubles) if line]
    return f'<div style="font-family: monospace">{"<br>".join(lines)}</div>'


def _text(line: str) -> str:
    return html.escape(one_line(line))
