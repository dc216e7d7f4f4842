"""A report as one HTML file: nothing is fetched, nothing is executed, and everything that a run names is escaped."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.core.files import write_atomically
from nas_meta.errors import RunError, one_line
from nas_meta.evaluation.metrics import metric_of
from nas_meta.journal.run import Run
from nas_meta.outputs.explain.path import MISSING
from nas_meta.outputs.report.cost import Rates
from nas_meta.outputs.report.facts import facts_of, interval_text
from nas_meta.outputs.report.figures import curves_figure, front_figure, importance_figure
from nas_meta.outputs.report.formatting import changed_choices
from nas_meta.outputs.report.side_by_side import pairs_of

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

TEMPLATE = "report.html.j2"
INK, MUTED = "#010203", "#010204"  # stand for the colours of the page in figures
POINTS, BARS = 400, 15  # trials and choices that figures show
LONGEST = 300  # characters of an error or a name
CONFIG = 40_000  # characters of a config
LEAST = 0.001  # amounts below are not distinguished


def report_facts(runs: Sequence[Run], rates: Rates, phase: str | None = None) -> dict[str, Any]:
    """Collect the facts of a report.

    Args:
        runs: One or more runs.
        rates: What an hour of computing takes.
        phase: How the search ended, if that is known better than from the status file of the run.

    Returns:
        ``runs``, the facts of every run, and ``pairs``, the first run against every other one.

    Raises:
        RunError: A journal is damaged.
    """
    found = [facts_of(run, rates, phase) for run in runs]
    if len({facts["name"] for facts in found}) < len(found):
        for facts in found:
            facts["name"] = facts["directory"]
    return {"runs": found, "pairs": pairs_of(runs)}


def render(runs: Sequence[Run], facts: Mapping[str, Any]) -> str:
    """Render a report.

    Args:
        runs: The runs.
        facts: Their facts, as :func:`report_facts` returns them.

    Returns:
        The HTML, which refers to nothing outside of itself.
    """
    figures = [_figures(run, found) for run, found in zip(runs, facts["runs"], strict=True)]
    return _environment().get_template(TEMPLATE).render(**facts, figures=figures)


def write_report(runs: Sequence[Run], facts: Mapping[str, Any], path: Path) -> None:
    """Render a report and write it into a file, which is replaced if it exists.

    Args:
        runs: The runs.
        facts: Their facts.
        path: The file.

    Raises:
        RunError: The file cannot be written.
    """
    if path.is_dir():
        raise RunError(f"{path} is a folder; expected the name of a file, such as {path / 'report.html'}")
    try:
        write_atomically(path, render(runs, facts).encode(), durable=False)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}; expected a file in a writable folder") from error


@cache
def _environment() -> Environment:
    """Return the template engine; every inserted text is escaped, and a missing fact is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nas_meta.outputs", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    filters: dict[str, Callable[..., Any]] = {
        "metric": metric_text, "interval": interval_text, "one_line": lambda text: one_line(str(text))[:LONGEST],
        "changes": lambda changes: changed_choices(changes, MISSING), "points": _points, "amount": amount, "cut": _cut,
        "from_rival": lambda differs: {name: (theirs, own) for name, (own, theirs) in differs.items()},
    }  # fmt: skip
    environment.filters.update(filters)
    environment.globals["points_drawn"] = POINTS
    environment.globals["title_of"] = lambda name: metric_of(name).title
    return environment


def metric_text(metrics: Mapping[str, Any], name: str) -> str:
    """Format a metric of a fact with its interval and unit; a dash if it is unknown.

    Args:
        metrics: Metrics by name.
        name: The metric.
    """
    known = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
    return metric_of(name).format(known) or "–"


def _points(value: float | None, decimals: int = 1) -> str:
    return "–" if value is None else f"{value:+.{decimals}f}"


def amount(value: float | None, unit: str) -> str:
    """Format an amount, at least 0, with two significant digits or more, and its unit.

    Args:
        value: The amount; None if it is not recorded.
        unit: The unit.
    """
    if value is None:
        return "not recorded"
    if 0 < value < LEAST:
        return f"less than {LEAST} {unit}"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}" if value >= 1 else f"{value:.2g} {unit}"


def _cut(text: str) -> str:
    return text if len(text) <= CONFIG else f"{text[:CONFIG]}\n… ({len(text) - CONFIG:,} more characters)"


def _figures(run: Run, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the figures of one run; those without data are missing."""
    found: dict[str, Any] = {"importances": {}}
    winner = facts["winner"]
    if winner is not None:
        chosen = run.best
        found["front"] = svg(lambda: front_figure(run.trials, run.objectives, chosen, POINTS))
    if facts["curves"]["rows"]:
        rows, best = facts["curves"]["rows"], winner["trial"] if winner else None
        found["curves"] = svg(lambda: curves_figure(rows, best))
    for result in facts["importances"]:
        if result["choices"]:
            choices = result["choices"][:BARS]
            found["importances"][result["metric"]] = svg(lambda choices=choices: importance_figure(choices))
    return found


def svg(draw: Callable[[], Figure]) -> Markup:
    """Draw a figure as SVG for a page: in the colours of the page, without metadata, and without unused ids.

    Args:
        draw: Draws the figure.

    Returns:
        The element ``<svg>``.
    """
    from markupsafe import Markup
    from matplotlib import rc_context

    colors = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: dict[str, Any] = dict.fromkeys(colors, INK) | {
        "svg.fonttype": "none", "svg.hashsalt": "nas-meta", "grid.color": MUTED, "axes.facecolor": "none",
        "figure.facecolor": "none", "legend.facecolor": "none", "legend.edgecolor": MUTED, "font.family": "sans-serif",
        "path.simplify": True,
    }  # fmt: skip
    out = io.StringIO()
    with rc_context(settings):
        draw().savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "var(--ink)").replace(MUTED, "var(--muted)")
    referenced = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in referenced else "", text)
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)
    # In HTML, elements and links of SVG need no namespaces.
    text = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    # The size follows the page; the view box keeps the proportions.
    return Markup(re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2))
