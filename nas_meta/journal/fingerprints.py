"""The journal's records of what a search depends on: one fingerprint of the problem, and an environment per change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from nas_meta.config.fingerprints.environment import Environment
from nas_meta.config.fingerprints.fingerprint import Fingerprint
from nas_meta.journal.database import Journal
from nas_meta.journal.row_checks import validated

FINGERPRINT, ENVIRONMENTS = "fingerprint", "environments"  # keys of the journal


def recorded_fingerprint(journal: Journal) -> Fingerprint | None:
    """Return the fingerprint of the data and the models of a run.

    Args:
        journal: The journal of the run.

    Returns:
        The fingerprint; None for a run of a version that recorded none.

    Raises:
        RunError: The record is damaged.
    """
    value = validated(Fingerprint | None, journal.get(FINGERPRINT), FINGERPRINT)
    return None if value is None else Fingerprint(**_known(Fingerprint, value))


def recorded_environments(journal: Journal) -> list[Environment]:
    """Return the environments of a run, oldest first.

    Args:
        journal: The journal of the run.

    Returns:
        The environments; none for a run of a version that recorded none.

    Raises:
        RunError: The record is damaged.
    """
    values = validated(list[Environment], journal.get(ENVIRONMENTS, []), ENVIRONMENTS)
    return [Environment(**_known(Environment, value)) for value in values]


def as_records(fingerprint: Fingerprint, environments: Sequence[Environment]) -> dict[str, Any]:
    """Return what the journal stores, by key.

    Args:
        fingerprint: The fingerprint of the data and the models.
        environments: The environments, oldest first.
    """
    return {FINGERPRINT: asdict(fingerprint), ENVIRONMENTS: [asdict(e) for e in environments]}


def _known(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that this version knows; a newer one may have written more."""
    return {name: value[name] for name in (f.name for f in fields(kind)) if name in value}
