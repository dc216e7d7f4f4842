"""The models that a search is compared with: the keys of its report, and the names that users see.

Programs read the keys, and the reports of older runs hold them, so the keys stay. Every table, picture and sentence
shows the same name instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNTRAINED = "unsearched model, no training"  # key of the model that the space starts from
UNADAPTED = "unsearched model before adaptation"  # key of the same model before domain adaptation, where there is any
UNTOUCHED = "the untouched model"  # the name of the model that the user began with
ADAPTED = "the whole model after domain adaptation"  # the name of what the space starts from after domain adaptation


def untouched_key(report: Mapping[str, Any]) -> str:
    """Return the key of the model that the user began with.

    Args:
        report: The report of a run; see :attr:`nas_meta.journal.run.Run.report`.
    """
    adapted = any(UNADAPTED in report.get(kind, {}) for kind in ("references", "unmeasured"))
    return UNADAPTED if adapted else UNTRAINED


def shown_name(key: str, report: Mapping[str, Any]) -> str:
    """Return the name under which users see a model.

    Args:
        key: Key of a reference or a comparison, or of what could not be measured.
        report: The report that holds it.

    Returns:
        The name. Keys of baselines and of models that were trained like the winner are names already.
    """
    if key == untouched_key(report):
        return UNTOUCHED
    return ADAPTED if key == UNTRAINED else key


def compared_models(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the meta-test metrics of every model that the trials are compared with.

    Args:
        report: The report of a run.

    Returns:
        Metrics by the name that users see: the references, then the models that were trained like the winner.
    """
    tested = {**report.get("references", {}), **report.get("comparisons", {})}
    return {shown_name(key, report): metrics for key, metrics in tested.items()}
