"""A run in a prompt and in a notebook: a line, and the verdict above a table of its best trials."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from nas_meta.core.wording import counted
from nas_meta.errors import NasMetaError, one_line
from nas_meta.evaluation.metrics import shown_metrics
from nas_meta.journal.run import rank
from nas_meta.outputs.report.formatting import short

if TYPE_CHECKING:
    from nas_meta.outputs.run import Run

MOST = 10  # trials in the table


def as_line(run: Run) -> str:
    """Return a run as one line.

    Args:
        run: The run.

    Returns:
        Its directory, the number of its trials and the best one; only the directory if its journal cannot be read.
    """
    name = repr(str(run.directory))
    try:
        best = next(iter(rank(run.trials, run.objectives)), None)
        return f"Run({name}, {counted(run.count, 'trial')}{f', best: {best!r}' if best else ''})"
    except NasMetaError:
        return f"Run({name})"


def as_html(run: Run) -> str:
    """Return a run as HTML for notebooks.

    Args:
        run: The run.

    Returns:
        Its verdict, once there is one, and its best trials; one line if its journal cannot be read.
    """
    try:
        ranked = rank(run.trials, run.objectives)[:MOST]
        names = shown_metrics([objective.metric for objective in run.objectives], {})
        titles = ["trial", *(metric.title for metric in names), "architecture"]
        rows = [[str(t.id), *(m.format(t.metrics) or "" for m in names), short(t.architecture)] for t in ranked]
        verdict, total = run.verdict, run.count
    except NasMetaError:
        return f"<p>{_text(as_line(run))}</p>"
    table = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    head = "".join(f"<th>{_text(title)}</th>" for title in titles)
    caption = f"{_text(str(run.directory))}: best {len(rows)} of {counted(total, 'trial')}"
    above = f"<p>{_text(verdict)}</p>" if verdict else ""
    return f"{above}<table><caption>{caption}</caption><tr>{head}</tr>{table}</table>"


def _text(text: str) -> str:
    return escape(one_line(text))
