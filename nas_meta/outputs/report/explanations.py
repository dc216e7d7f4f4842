"""Explanations in the terminal: tables of choices, of the way to the winner, and of a prediction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import metric_of
from nas_meta.outputs.explain.importances import Importances
from nas_meta.outputs.explain.path import MISSING, Path, Step
from nas_meta.outputs.explain.prediction import Explanation
from nas_meta.outputs.report.formatting import changed_choices
from nas_meta.outputs.report.listing import Listing

ROWS = 20  # choices, support examples and words that are shown; --json has all


def importance_table(result: Importances) -> Listing:
    """Build the table of choices that matter for one objective.

    Args:
        result: Their importances.
    """
    metric = metric_of(result.metric)
    table = Listing("choice", title=f"Which choices matter for {metric.title}")
    for title in ("share", "95% interval", "best value", f"gain, {metric.unit or metric.title}"):
        table.add_column(title, justify="right")
    for row in result.choices[:ROWS]:
        interval = f"{100 * row.low:.0f} to {100 * row.high:.0f} %"
        share = f"{100 * row.share:.0f} %{' *' if row.stands_out else ''}"
        table.add_row(share, interval, one_line(str(row.best)), f"{row.gain:.1f}", detail=one_line(row.choice))
    more = len(result.choices) - ROWS
    table.caption = one_line(result.sentence)
    if result.choices:
        starred = "* more than shuffled results explain; " if any(row.stands_out for row in result.choices) else ""
        table.caption += f"\n{starred}gain: mean of the best value minus that of the worst"
    if more > 0:
        table.caption += f"\n{more} more choices; --json has all"
    return table


def path_table(path: Path) -> Listing:
    """Build the table of the way to the winner.

    Args:
        path: The way.
    """
    table = Listing("change", title=f"From {one_line(path.start)} to trial {path.winner}, one choice at a time")
    title = f"{metric_of(path.metric).title}{f', {path.unit}' if path.unit else ''}"
    for name in (title, "gain"):
        table.add_column(name, justify="right")
    table.add_row(_value(path.start_value, path.start_measured), "", detail=one_line(path.start))
    for step in path.steps:
        table.add_row(_value(step.value, step.measured), gain(step), detail=changed_choices(step.changes, MISSING))
    table.caption = f"values of {path.results}; ~ is predicted\n{one_line(path.sentence)}"
    return table


def rivals_table(path: Path) -> Listing:
    """Build the table of the trials behind the winner.

    Args:
        path: The way to the winner, with its rivals.
    """
    table = Listing("the winner differs in", title=f"Nearest rivals of trial {path.winner}")
    for title in ("trial", f"behind by, {path.unit or path.metric}", "winner in meta-test"):
        table.add_column(title, justify="right")
    for rival in path.rivals:
        reverse = {name: (theirs, own) for name, (own, theirs) in rival.differs.items()}
        cells = (str(rival.trial), f"{rival.gap:.1f}", rival.test or "not tested")
        table.add_row(*cells, detail=changed_choices(reverse, MISSING) or "nothing")
    return table


def prediction_lines(explanation: Explanation) -> Iterable[Any]:
    """Yield what to print for an explained prediction: a line, two tables and notes.

    Args:
        explanation: The explanation.
    """
    refused = "; the classifier refuses to answer" if explanation.refused else ""
    yield one_line(f"{explanation.label} with a probability of {explanation.probability:.2f}{refused}")
    if explanation.support:
        table = Listing("support example", title="Support examples")
        for title in ("class", "share", "contribution", "similarity"):
            table.add_column(title, justify="left" if title == "class" else "right")
        for row in explanation.support[:ROWS]:
            share = "" if row.share is None else f"{100 * row.share:+.1f} %"
            contribution = "" if row.contribution is None else f"{row.contribution:+.3f}"
            text = "(text not kept)" if row.text is None else one_line(row.text[:200])
            table.add_row(one_line(str(row.label)), share, contribution, f"{row.similarity:.2f}", detail=text)
        if explanation.value is not None:
            table.caption = (
                f"{explanation.score} {explanation.value:.3f} = {explanation.constant:.3f} + all contributions\n"
                f"contribution: {explanation.formula}"
            )
        yield table
    if explanation.words:
        table = Listing("class without it", title="Words")
        table.add_column("word")
        table.add_column("probability that it adds", justify="right")
        for word in explanation.words[:ROWS]:
            same = word.label_without == explanation.label
            table.add_row(
                one_line(word.word[:50]),
                f"{word.effect:+.3f}",
                detail="" if same else one_line(str(word.label_without)),
            )
        yield table
    if explanation.note:
        yield one_line(f"note: {explanation.note}")


def gain(step: Step) -> str:
    """Format the gain of a step; a tilde marks a prediction.

    Args:
        step: The step.
    """
    return "" if step.gain is None else f"{'' if step.gain_measured else '~'}{step.gain:+.1f}"


def _value(value: float | None, measured: bool) -> str:
    return "unknown" if value is None else f"{'' if measured else '~'}{value:.1f}"
