"""Load a classifier from an exported folder, a run, or a saved classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.core.files import similar_sibling
from nas_meta.errors import ConfigError
from nas_meta.outputs.classifier.classifier import FewShotClassifier
from nas_meta.outputs.classifier.saving import FITTED, read_document, restore
from nas_meta.outputs.ensemble.description import ENSEMBLE
from nas_meta.outputs.onnx.description import DESCRIPTION

if TYPE_CHECKING:
    from nas_meta.journal.run import Run


def load_classifier(
    path: str | Path | Run,
    *,
    trial: int | None = None,
    device: str | None = None,
    batch_size: int = 64,
    model: str | Path | None = None,
    allow_plugins: bool = False,
) -> FewShotClassifier:
    """Load a few-shot classifier.

    Args:
        path: A folder that ``nas-meta export``, ``nas-meta ensemble`` or ``nas-meta adapt`` wrote, a run or its
            directory, or a saved classifier.
        trial: ID of a trial of the run whose weights were kept; by default the best trial.
        device: ``cpu`` or ``cuda``; by default ``cuda`` where the config of the model allows it and torch finds one.
        batch_size: Approximate number of examples per call of the model.
        model: Folder of the model of a saved classifier, if it has moved.
        allow_plugins: Whether the code of plugin files that the model names may be run.

    Returns:
        The classifier; that of a saved classifier, or of a model that was adapted to one task, is fitted.

    Raises:
        ConfigError: The folder is none of these, or it cannot be loaded.
        PluginError: The model needs the code of a plugin file.
        RunError: The run has no weights of the trial.
    """
    settings: dict[str, Any] = {"device": device, "batch_size": batch_size, "allow_plugins": allow_plugins}
    if not isinstance(path, (str, Path)):
        return _of_trial(path, trial, device, batch_size)
    folder = Path(path)
    if (folder / FITTED).is_file():
        _refuse_trial(folder, trial)
        document = read_document(folder)
        target = Path(model) if model is not None else Path(document["model"])
        if (target / FITTED).is_file():
            raise ConfigError(f"{target} is a saved classifier; expected the folder of its model")
        return restore(load_classifier(target, **settings), folder, document)
    if (folder / DESCRIPTION).is_file():  # before the imports below: these folders need neither torch nor pydantic
        _refuse_trial(folder, trial)
        from nas_meta.outputs.onnx.session import load_parts

        return FewShotClassifier(load_parts(folder, device), _size(batch_size), str(folder))
    if (folder / ENSEMBLE).is_file():
        _refuse_trial(folder, trial)
        from nas_meta.outputs.classifier.ensemble_parts import parts_of_ensemble

        ensemble = parts_of_ensemble(folder, lambda member: load_classifier(member, **settings).parts)
        return FewShotClassifier(ensemble, _size(batch_size), str(folder))
    try:
        from nas_meta.journal.database import Journal
        from nas_meta.journal.run import load_run
        from nas_meta.outputs.classifier.torch_model import parts_of_folder
        from nas_meta.outputs.export.exported_model import CONFIG
        from nas_meta.outputs.export.task_model import HEAD, LABELS
    except ModuleNotFoundError as error:  # in an installation for ONNX alone
        raise ConfigError(
            f"{folder} is not an ONNX model, so it needs the package {error.name}, which is not installed: "
            "pip install nas-meta"
        ) from error
    if Journal.exists(folder):
        return _of_trial(load_run(folder, allow_plugins), trial, device, batch_size)
    _refuse_trial(folder, trial)
    if (folder / HEAD).is_file() and (folder / LABELS).is_file():
        from nas_meta.outputs.classifier.task_parts import load_task_model

        parts, fitted = load_task_model(folder, device, allow_plugins)
        return FewShotClassifier(parts, _size(batch_size), str(folder), fitted=fitted)
    if not (folder / CONFIG).is_file() or not (folder / "config.json").is_file():
        if hint := similar_sibling(folder):
            raise ConfigError(f"{folder} does not exist{hint}")
        raise ConfigError(
            f"{folder} is not an exported model: it has no {CONFIG} beside a config.json; expected a folder that "
            "'nas-meta export' wrote, a run directory, or a saved classifier"
        )
    return FewShotClassifier(parts_of_folder(folder, device, allow_plugins), _size(batch_size), str(folder))


def _of_trial(run: Run, trial: int | None, device: str | None, batch_size: int) -> FewShotClassifier:
    """Return the classifier of a trial of a run."""
    from nas_meta.outputs.classifier.torch_model import parts_of_trial

    return FewShotClassifier(parts_of_trial(run, trial, device), _size(batch_size), str(run.directory))


def _refuse_trial(folder: Path, trial: int | None) -> None:
    """Refuse the ID of a trial of what is not a run."""
    if trial is not None:
        raise ConfigError(f"{folder} is not a run, so it has no trial {trial}; expected a run directory")


def _size(batch_size: int) -> int:
    """Return a valid batch size."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size!r}; expected a positive integer")
    return batch_size
