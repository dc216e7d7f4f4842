"""Metrics of a trial that cost something, and are measured only if the config asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_meta.evaluation.metrics import ACCURACY, INTERVAL, METRICS, OPEN_SET, of_form
from nas_meta.evaluation.open_set import embedded, open_set_metrics, open_tasks
from nas_meta.models.profiling import interval95

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.models.encoder import Encoder


def further_metrics(evaluation: Evaluation, encoder: Encoder, episodes: int) -> dict[str, float]:
    """Measure what :attr:`Evaluation.measured <nas_meta.evaluation.trial.Evaluation.measured>` names.

    Args:
        evaluation: The evaluation of the search.
        encoder: The trained encoder; it is left as it was, except that it is in evaluation mode.
        episodes: Number of meta-validation episodes.

    Returns:
        Metrics with their 95% intervals, by name.
    """
    found: dict[str, float] = {}
    for form in dict.fromkeys(METRICS[n].form for n in evaluation.measured if n.startswith(ACCURACY)):
        from nas_meta.evaluation.deployed import deployed_accuracies

        scores = deployed_accuracies(evaluation, encoder, form, "meta-validation", episodes)
        name = of_form(ACCURACY, form)
        found |= {name: float(scores.mean()), name + INTERVAL: interval95(scores)}
    if any(name in OPEN_SET for name in evaluation.measured):
        split = embedded(evaluation, encoder, "meta-validation")
        found |= open_set_metrics(split, open_tasks(split, evaluation.shape, evaluation.settings.seed))
    return found
