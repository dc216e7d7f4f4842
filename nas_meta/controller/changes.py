"""A run is resumed with the data and the models that it began with; anything else that changed is a warning.

Trials before and after a change of the data would not be comparable, and nothing in the run would show it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.config.fingerprints.data import same_counts
from nas_meta.config.fingerprints.environment import (
    DATA_PACKAGES,
    IMAGE_DECODER,
    Environment,
    data_package_difference,
    environment_differences,
    environment_of,
)
from nas_meta.config.fingerprints.fingerprint import (
    Fingerprint,
    data_differences,
    model_differences,
    take_fingerprint,
)
from nas_meta.config.pretraining import ADAPTED
from nas_meta.errors import ConfigError, one_line
from nas_meta.journal.database import Journal
from nas_meta.journal.fingerprints import as_records, recorded_environments, recorded_fingerprint

if TYPE_CHECKING:
    from nas_meta.config.problem import Problem
    from nas_meta.config.resolved import ResolvedConfig
    from nas_meta.tasks.corpus.corpus import Corpus

log = logging.getLogger(__name__)


def refuse_changed_models(resolved: ResolvedConfig, directory: Path) -> None:
    """Refuse to resume a run whose pretrained models have changed, before anything is loaded.

    Args:
        resolved: The config that the run is resumed with.
        directory: The run directory.

    Raises:
        ConfigError: A file of a model differs from the one that the run began with.
    """
    recorded = recorded_fingerprint(Journal.open(directory))
    if recorded is not None:
        _refuse(model_differences(recorded, take_fingerprint(resolved), resolved), directory)


def checked_fingerprints(
    resolved: ResolvedConfig, directory: Path, problem: Problem, corpus: Corpus | None, cpus: float, resumed: bool
) -> dict[str, Any]:
    """Take the fingerprints of a search, and compare them with those in the journal if it is resumed.

    Args:
        resolved: The config as the user wrote it, without what the run made.
        directory: The run directory.
        problem: The problem of the search, whose tasks have been read.
        corpus: The texts of pre-training; None without it.
        cpus: CPUs per trial.
        resumed: Whether the directory holds the run that is resumed. A run without fingerprints gets them now.

    Returns:
        What the journal records, by key.

    Raises:
        ConfigError: Data, models or corpus differ from those that the run began with.
        DataError: The corpus cannot be read.
    """
    # The adapted model is part of the run: nothing depends on its corpus any more.
    adapted = (directory / ADAPTED).is_dir()
    now = take_fingerprint(resolved, problem.tasks, None if adapted else corpus)
    environment = environment_of(resolved, cpus)
    if not resumed:
        return as_records(now, [environment])
    journal = Journal.open(directory)
    recorded, environments = recorded_fingerprint(journal), recorded_environments(journal)
    latest = environments[-1] if environments else environment
    if recorded is not None:
        first = environments[0] if environments else environment
        _refuse(_differences(recorded, now, resolved, first, environment), directory)
        now = recorded.completed_by(now)
    if changes := list(environment_differences(latest, environment)):
        log.warning(
            "%s",
            one_line(
                f"the run resumes although {'; '.join(changes)}; the numbers of further trials may not be comparable "
                "with those of earlier ones"
            ),
        )
    if not environments or replace(environment, since=latest.since) != latest:
        environments.append(environment)
    return as_records(now, environments)


def _differences(
    recorded: Fingerprint, now: Fingerprint, resolved: ResolvedConfig, before: Environment, environment: Environment
) -> list[str]:
    """Return the differences that no run is resumed with."""
    models, data = model_differences(recorded, now, resolved), data_differences(recorded, now, resolved)
    package = data_package_difference(resolved, before, environment)
    decoder = DATA_PACKAGES.get(resolved.sections.tasks.source) == IMAGE_DECODER
    if data and package and decoder and same_counts(recorded.data, now.data):
        # Versions of an image decoder may round differently; the files can be the same.
        log.warning("%s", one_line(f"{data[0]}; {package}, which may decode the same images differently"))
        data = []
    return [*models, *(f"{clause}; {package}" if package else clause for clause in data)]


def _refuse(differences: list[str], directory: Path) -> None:
    if differences:
        raise ConfigError(
            f"{directory} cannot be resumed with other data or models than it began with: {'; '.join(differences)}; "
            "expected them as they were: restore them, or start a new search in another run directory"
        )
