"""How a trial was pre-trained, as the journal holds it: a key of weights, and the key that they inherited from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas_meta.errors import RunError
from nas_meta.journal.database import Journal
from nas_meta.journal.row_checks import validated


def name_of_record(trial_id: int) -> str:
    """Under what the journal holds how a trial was pre-trained."""
    return f"pretrained/{trial_id}"


def record_of(journal: Journal, trial_id: int) -> dict[str, Any] | None:
    """How a trial was pre-trained, if it was.

    Raises:
        RunError: what stands there is not what a search writes.
    """
    record = journal.get(name_of_record(trial_id))
    if record is None:
        return None
    validated(dict[str, str | None], record, name_of_record(trial_id))
    keys = [record.get("key"), record.get("donor")]
    # They become names of files.
    if not isinstance(keys[0], str) or not all(k is None or (len(k) == 32 and k.isalnum()) for k in keys):
        raise RunError(f"the journal cannot be read: what stands under '{name_of_record(trial_id)}' is no key")
    return {"key": keys[0], "donor": keys[1]}


FOLDER = "pretrained"


def path_of(directory: Path, key: str) -> Path:
    """Where the weights of a key lie while they are kept."""
    return directory / FOLDER / f"{key}.safetensors"
