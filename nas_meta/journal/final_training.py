"""What a journal says about final training: when its weights are used, and a sentence for users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_meta.core.objectives import Objective
from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import ACCURACY, metric_of
from nas_meta.journal.database import Journal
from nas_meta.journal.records import Trial
from nas_meta.journal.row_checks import FinallyTrained, validated

FINAL_TRAINING = "final_training"  # key of the journal


def final_results(journal: Journal) -> dict[int, dict[str, Any]]:
    """Read the results of final training.

    Args:
        journal: The journal of a run.

    Returns:
        The results by trial id; empty without a final training.

    Raises:
        RunError: The journal is damaged.
    """
    rows = validated(list[FinallyTrained], journal.get(FINAL_TRAINING, []), FINAL_TRAINING)
    return {row["trial"]: row for row in rows}


def is_better(after: Mapping[str, float], before: Mapping[str, float], objective: Objective) -> bool:
    """Return whether a model is better after its final training.

    Args:
        after: The metrics after it.
        before: The metrics of the trial, on the same episodes.
        objective: The first objective. If training does not change its metric, such as a size, the accuracy decides.
    """
    metric, sign = (objective.metric, objective.sign) if objective.metric in after else (ACCURACY, 1)
    return sign * after[metric] > sign * before[metric]


def final_sentence(trial: Trial, row: Mapping[str, Any], objective: Objective) -> str:
    """Return what the final training of a trial gained.

    Args:
        trial: The trial.
        row: Its entry of :attr:`nas_meta.journal.run.Run.final_training`.
        objective: The first objective.

    Returns:
        A sentence without a full stop, such as "trial 3, trained for 160 more steps: 81.2 ± 1.4 % on meta-validation
        instead of 80.1 ± 1.5 %; it has the new weights".
    """
    if row["error"]:
        return f"trial {trial.id} could not be trained further: {one_line(row['error'])}"
    after = row["metrics"]
    metric = metric_of(objective.metric if objective.metric in after else ACCURACY)
    named = "" if metric.name == ACCURACY else f"{metric.title} "
    found = f"{named}{metric.format(after)} on meta-validation instead of {metric.format(trial.metrics)}"
    use = "it has the new weights" if row["kept"] else "that is no better, so it has the weights of the search"
    return f"trial {trial.id}, trained for {row['options'].get('steps')} more steps: {found}; {use}"
