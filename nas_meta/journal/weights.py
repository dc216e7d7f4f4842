"""The trained weights of trials, as files of the run directory."""

from __future__ import annotations

from pathlib import Path

from nas_meta.errors import RunError

FOLDER = "weights"


def weights_path(directory: Path, trial_id: int) -> Path:
    """Return the path of a trial's trained weights; the file exists while they are kept.

    Args:
        directory: The run directory.
        trial_id: The id of the trial.

    Returns:
        The path.
    """
    return directory / FOLDER / f"{trial_id}.safetensors"


def final_weights_path(directory: Path, trial_id: int) -> Path:
    """Return the path of a trial's weights after its final training; the file exists if that made the trial better.

    Args:
        directory: The run directory.
        trial_id: The id of the trial.

    Returns:
        The path.
    """
    return directory / FOLDER / f"{trial_id}.final.safetensors"


def used_weights_path(directory: Path, trial_id: int) -> Path:
    """Return the path of the weights that a trial is tested, exported and used with.

    Args:
        directory: The run directory.
        trial_id: The id of the trial.

    Returns:
        :func:`final_weights_path` if that file exists, otherwise :func:`weights_path`.
    """
    final = final_weights_path(directory, trial_id)
    return final if final.is_file() else weights_path(directory, trial_id)


def trials_with_weights(directory: Path) -> list[int]:
    """Return the ids of the trials whose weights are kept, in ascending order.

    Args:
        directory: The run directory.
    """
    files = (directory / FOLDER).glob("*.safetensors")
    return sorted(int(file.stem) for file in files if file.stem.isdecimal())


def read_weights(directory: Path, trial_id: int) -> bytes:
    """Read the weights that a trial is tested, exported and used with.

    Args:
        directory: The run directory.
        trial_id: The id of the trial.

    Returns:
        The weights (safetensors).

    Raises:
        RunError: The weights were not kept, or the file is damaged.
    """
    from nas_meta.models.state import damage_of_weights

    path = used_weights_path(directory, trial_id)
    if not path.is_file():
        kept = trials_with_weights(directory)
        hint = f"expected one of the trials {', '.join(map(str, kept))}" if kept else "this run has no weights"
        raise RunError(f"the weights of trial {trial_id} were not kept; {hint}")
    damage = damage_of_weights(path)
    if damage is not None:
        raise RunError(
            f"the weights of trial {trial_id} cannot be read: {path} is damaged ({damage}); expected another trial"
        )
    return path.read_bytes()
