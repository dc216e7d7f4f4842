"""Measure the trained model of a trial on episodes, as a folder that is exported from it would be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from nas_meta.config.provenance import Source
from nas_meta.config.resolved import read_config, resolve
from nas_meta.outputs.export.exported_model import CONFIG, evaluate_folder
from nas_meta.outputs.export.folder import export

if TYPE_CHECKING:
    from nas_meta.journal.run import Run


def evaluate_trial(
    run: Run,
    trial_id: int | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    **protocol: Any,
) -> dict[str, Any]:
    """Measure the accuracy of a trial's model on episodes, without further meta-training.

    Args:
        run: The run.
        trial_id: ID of the trial; by default the best trial.
        config: Config file with the tasks and the learner; by default those of the trial.
        overrides: Overrides of the config, ``section.key=value``.
        **protocol: Arguments of :func:`~nas_meta.outputs.export.exported_model.evaluate_folder`, such as ``shots``.

    Returns:
        What :func:`~nas_meta.outputs.export.exported_model.evaluate_folder` returns, with the ID of the ``trial``.

    Raises:
        ConfigError: The config is not valid, or the model does not fit it.
        RunError: The run has no weights of the trial.
    """
    trial = run.best if trial_id is None else run.trial(trial_id)
    with TemporaryDirectory() as parent:
        folder = export(run, Path(parent) / "model", trial.id, changes=False)
        if config:
            chosen = read_config(config, overrides)
        else:
            document = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
            source = Source(f"trial {trial.id} of {run.directory}", overridden=[o.partition("=")[0] for o in overrides])
            chosen = resolve(document, source, overrides, recorded=True)
        row = evaluate_folder(folder, chosen, **protocol)
    return {**row, "model": str(run.directory), "trial": trial.id}
