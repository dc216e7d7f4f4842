"""The journal's record of a trial's pre-training: the key of its weights, and the key of their donor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas_meta.errors import RunError
from nas_meta.journal.database import Journal
from nas_meta.journal.row_checks import validated


def name_of_record(trial_id: int) -> str:
    """Return the key of the journal under which the pre-training of a trial is recorded.

    Args:
        trial_id: The id of the trial.

    Returns:
        The key.
    """
    return f"pretrained/{trial_id}"


def record_of(journal: Journal, trial_id: int) -> dict[str, Any] | None:
    """Return the record of a trial's pre-training.

    Args:
        journal: The journal.
        trial_id: The id of the trial.

    Returns:
        ``key`` of its weights and ``donor``, the key of the weights that they inherit from, which may be None; None if
        the trial was not pre-trained.

    Raises:
        RunError: The record is invalid.
    """
    record = journal.get(name_of_record(trial_id))
    if record is None:
        return None
    validated(dict[str, str | None], record, name_of_record(trial_id))
    keys = [record.get("key"), record.get("donor")]
    # Keys become file names, so a path is refused.
    if not isinstance(keys[0], str) or not all(k is None or (len(k) == 32 and k.isalnum()) for k in keys):
        raise RunError(
            f"the journal cannot be read: '{name_of_record(trial_id)}' is not a key of weights; "
            "expected 32 letters and digits"
        )
    return {"key": keys[0], "donor": keys[1]}


FOLDER = "pretrained"


def path_of(directory: Path, key: str) -> Path:
    """Return the path of pre-trained weights; the file exists while they are kept.

    Args:
        directory: The run directory.
        key: The key of the weights.

    Returns:
        The path.
    """
    return directory / FOLDER / f"{key}.safetensors"
