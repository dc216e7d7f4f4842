"""The table that compares an ensemble with single trials."""

from __future__ import annotations

from nas_meta.outputs.ensemble.folder import cells
from nas_meta.outputs.ensemble.judging import Judged, listed
from nas_meta.outputs.report.listing import Listing


def ensemble_table(judged: Judged) -> Listing:
    """Build the table of an ensemble, the best single trial, and the single trial nearest to its latency.

    Args:
        judged: The comparison.

    Returns:
        The table; the details are the trials, those of the ensemble with the number of times they were selected.
    """
    table = Listing("trials")
    table.add_column("")
    for title in ("accuracy", "against the best", "calibration error", "latency", "parameters"):
        table.add_column(title, justify="right")
    shares = dict(zip(judged.rows[1].trials, judged.weights, strict=True))
    for row in judged.rows:
        detail = listed(row.trials)
        if row is judged.rows[1]:
            total = sum(judged.weights)
            detail = ", ".join(f"{trial} ({shares[trial] / total:.0%})" for trial in row.trials)
        table.add_row(row.title, *cells(row), detail=detail)
    table.caption = (
        f"measured on {judged.episodes} meta-validation {judged.unit} that the selection did not use; ± is the 95% "
        "interval, that of a difference is paired; latency and parameters of the ensemble are sums"
    )
    if judged.same_latency:
        table.caption += f"\n{judged.same_latency}"
    return table
