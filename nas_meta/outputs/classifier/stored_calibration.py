"""The calibration of a trial, kept in its run directory: fitting one reads the data and embeds thousands of texts."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nas_meta.config.fingerprints.data import data_difference, fingerprint_of_tasks, names_digest
from nas_meta.core.files import regular_file, write_atomically
from nas_meta.evaluation.calibration import MOST_BYTES, from_json
from nas_meta.outputs.export.calibrating import calibrated, identity

if TYPE_CHECKING:
    from nas_meta.evaluation.calibration import Calibration
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.journal.run import Run
    from nas_meta.models.encoder import Encoder
    from nas_meta.space.search_space import SearchSpace
    from nas_meta.tasks.pool import Tasks

FOLDER = "calibrations"  # in the run directory


def calibration_of(
    run: Run, trial: int, weights: bytes, space: SearchSpace, evaluation: Evaluation, encoder: Encoder
) -> Calibration | None:
    """Return the calibration of a trial: the one that an earlier call kept, or a new one, which is kept.

    A kept calibration is used only for the same weights, learner, pooling, seed, data and words for classes of the run.
    One that was fitted to other data or words than the search read is not kept.

    Args:
        run: The run.
        trial: ID of the trial.
        weights: Its trained weights.
        space: Its space.
        evaluation: The evaluation of its architecture.
        encoder: Its model.

    Returns:
        The calibration; None as :func:`~nas_meta.outputs.export.calibrating.calibrated`.
    """
    file = run.directory / FOLDER / f"{trial}.json"
    key = _key(run, weights, evaluation, encoder)
    with suppress(OSError, ValueError, RecursionError):  # missing, or damaged: fitted again
        kept = from_json(regular_file(file, MOST_BYTES).read_text(encoding="utf-8"), key)
        if kept is not None:
            return kept
    recorded, same_data = run.fingerprint, False

    def compare(tasks: Tasks) -> None:
        nonlocal same_data
        same_data = (
            recorded is not None
            and data_difference(recorded.data, fingerprint_of_tasks(tasks)) is None
            and recorded.names in (None, names_digest(tasks))
        )

    calibration = calibrated(run.config, space, evaluation, encoder, compare)
    if calibration is not None and same_data:
        _keep(file, calibration.as_json(key))
    return calibration


def _key(run: Run, weights: bytes, evaluation: Evaluation, encoder: Encoder) -> str:
    """Return a digest of everything that a calibration depends on."""
    recorded, tasks = run.fingerprint, run.config.sections.tasks
    parts = [
        identity(evaluation.learner, encoder.pooling), hashlib.sha256(weights).hexdigest(), evaluation.settings.seed,
        tasks.model_dump(mode="json"), {} if recorded is None else recorded.data,
        *([recorded.names] if recorded is not None and recorded.names else []),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _keep(file: Path, content: str) -> None:
    """Write a calibration where the run directory can be written, and no link leads out of it."""
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        if os.path.realpath(file.parent) == os.path.join(os.path.realpath(file.parent.parent), FOLDER):
            write_atomically(file, content.encode(), durable=False)
