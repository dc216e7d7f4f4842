"""Why a path that the user gave is not a run, and which path was probably meant."""

from __future__ import annotations

from pathlib import Path

from nas_meta.core.files import similar_sibling


def why_not_a_run(directory: Path, journal: str) -> str:
    """Return the sentence for a path without a journal.

    Args:
        directory: The path as the user wrote it.
        journal: Name of the file that makes a directory a run.

    Returns:
        The sentence, with a run of a similar name or a run inside the folder if there is one.
    """
    sentence = f"{directory} is not a run: "
    if not directory.exists():
        return f"{sentence}it does not exist{similar_sibling(directory)}"
    if not directory.is_dir():
        return f"{sentence}it is a file; expected a run directory"
    inner = max(directory.glob(f"*/{journal}"), key=lambda file: file.stat().st_mtime, default=None)
    if inner is None:
        return f"{sentence}it has no {journal}"
    return f"{sentence}it is a folder of runs; expected one of them, such as '{inner.parent}'"
