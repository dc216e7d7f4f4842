"""What has changed since a trial of a run was measured: why a rerun, or an export, may not be what it was."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas_meta.config.fingerprints.environment import environment_differences, environment_of
from nas_meta.config.fingerprints.fingerprint import data_differences, model_differences, take_fingerprint
from nas_meta.config.gpu_sharing import on_this_machine
from nas_meta.config.pretraining import read_corpus
from nas_meta.config.resolved import resolve
from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import ACCURACY
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run

if TYPE_CHECKING:
    from nas_meta.tasks.pool import Tasks

log = logging.getLogger(__name__)


def differences(run: Run, trial: Trial | None = None, tasks: Tasks | None = None) -> list[str]:
    """Return in words what differs from what a run, or one of its trials, used.

    Args:
        run: The run.
        trial: Trial whose plugin files, versions and processor are compared; None compares none.
        tasks: The tasks as they are now; None compares no data.

    Returns:
        One clause for each difference; none where the run recorded no fingerprint.

    Raises:
        ConfigError: A file of a model cannot be read.
    """
    own = resolve(run.config.given, recorded=True)  # names the model of the user, even where the run has an adapted one
    found: list[str] = []
    recorded = run.fingerprint
    if recorded is not None:
        pretraining = own.sections.pretraining
        candidates = tasks is not None and pretraining is not None and pretraining.of == "candidates"
        now = take_fingerprint(own, tasks, read_corpus(own) if candidates else None)
        found = [*data_differences(recorded, now, own), *model_differences(recorded, now, own)]
    environment = None if trial is None else run.environment_of(trial)
    if environment is not None:
        now_here = environment_of(on_this_machine(own), run.cpus)
        found += environment_differences(environment, now_here, same_trial=True)
    return [one_line(clause) for clause in found]


def compared_with_journal(run: Run, trial: Trial, accuracy: float, changes: Sequence[str]) -> str:
    """Compare the accuracy of a rerun with that in the journal, and explain the difference.

    Args:
        run: The run.
        trial: The trial.
        accuracy: The accuracy of its rerun.
        changes: What :func:`differences` returned.

    Returns:
        ``identical to the journal``, or the accuracy in the journal with the changes since then. Where there are none,
        what remains as the reason.
    """
    recorded = trial.metrics.get(ACCURACY)
    if recorded == accuracy:
        return "identical to the journal"
    if recorded is None:
        return f"the journal has no accuracy, because the trial is {trial.status}"
    return f"the journal has {recorded}; {'; '.join(changes) or _without_changes(run, trial)}"


def _without_changes(run: Run, trial: Trial) -> str:
    """Return why a rerun has another number, although nothing that the run recorded has changed."""
    environment = run.environment_of(trial)
    if run.fingerprint is None or environment is None:
        return "the nas-meta that ran it recorded no fingerprints, so the reason is unknown"
    if environment.processor.get("device") == "cuda":
        return "data, models, plugin files and versions are the same, but a GPU adds numbers in a varying order"
    return (
        "data, models, plugin files, versions and processor are the same; a plugin may draw random numbers that are "
        "not torch's, or import a module that has changed"
    )


def warn_of_changes(run: Run, tasks: Tasks | None = None) -> None:
    """Log a warning if the data or the models of a run are not those that it began with.

    Args:
        run: The run.
        tasks: The tasks as they are now; None compares the models only.
    """
    for clause in differences(run, tasks=tasks):
        log.warning("%s", clause)
