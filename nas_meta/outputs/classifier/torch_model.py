"""Load the torch model of a classifier: from an exported folder or from a trial of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.config.components import make_evaluation
from nas_meta.config.gpu_sharing import on_this_machine
from nas_meta.config.problem import episode_shape, make_space
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.guard import first_line
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.evaluation.calibration import Calibration, read_calibration
from nas_meta.journal.run import Run
from nas_meta.outputs.classifier.stored_calibration import calibration_of
from nas_meta.outputs.export.calibrating import identity
from nas_meta.outputs.export.exported_model import CONFIG, LEARNED, exported_config, restore_learned
from nas_meta.tasks.examples import IMAGE, TEXT

if TYPE_CHECKING:
    from nas_meta.models.encoder import Encoder
    from nas_meta.outputs.classifier.adaptation import ModelParts


def parts_of_trial(run: Run, trial: int | None, device: str | None) -> ModelParts:
    """Rebuild the model of a trial of a run.

    Args:
        run: The run.
        trial: ID of the trial; None takes the best trial.
        device: ``cpu`` or ``cuda``; None follows the config.

    Returns:
        The model.

    Raises:
        RunError: The run has no weights of the trial.
    """
    row = run.best if trial is None else run.trial(trial)
    weights = run.weights_of(row)
    space = make_space(run.config)
    architecture = space.canonical(row.architecture)
    config = run.config.at(architecture, space.pooling(architecture))
    evaluation = _evaluation(run.config, space, device)
    encoder = evaluation.restored(architecture, weights).eval()
    chosen = evaluation.of(architecture)
    calibration = calibration_of(run, row.id, weights, space, chosen, encoder)
    return _parts(encoder, chosen.learner, config, space, space.tokenizer, calibration)


def parts_of_folder(folder: Path, device: str | None, allow_plugins: bool) -> ModelParts:
    """Load the model of an exported folder.

    Args:
        folder: The folder.
        device: ``cpu`` or ``cuda``; None follows the config.
        allow_plugins: Whether the code of plugin files that the model names may be run.

    Returns:
        The model.

    Raises:
        ConfigError: The folder cannot be loaded.
        PluginError: The model needs the code of a plugin file.
    """
    from safetensors.torch import load_file
    from transformers.utils import logging

    from nas_meta.models.token_checks import check_weights

    config = exported_config(folder, allow_plugins=allow_plugins)
    if config.searched.choices:
        raise ConfigError(
            f"{folder / CONFIG} has the choice {next(iter(config.searched.choices))}; expected an exported config"
        )
    logging.disable_progress_bar()
    space = config.plugin("space")(config.options["space"])
    evaluation = _evaluation(config, space, device)
    try:
        model = space.load(folder)
        check_weights(model, str(folder))
        encoder = evaluation.encoder(model).eval()
        if (folder / LEARNED).is_file():
            restore_learned(encoder, load_file(folder / LEARNED), evaluation, config, folder)
        calibration = read_calibration(folder, identity(evaluation.learner, encoder.pooling))
        return _parts(encoder, evaluation.learner, config, space, str(folder), calibration)
    except NasMetaError:
        raise
    except Exception as error:  # a folder may hold anything
        raise ConfigError(f"{folder} cannot be loaded: {first_line(error, with_type=False)}") from error


def _evaluation(config: ResolvedConfig, space: Any, device: str | None) -> Any:
    """Return the evaluation that builds the encoder, on a device."""
    from nas_meta.models.compute import Compute

    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; expected cpu or cuda")
    evaluation = make_evaluation(on_this_machine(config), space, None, episode_shape(config), cpus=0)
    compute = Compute(device=device or evaluation.compute.device)
    compute.check()
    return dataclasses.replace(evaluation, compute=compute)


def _parts(
    encoder: Encoder, learner: Any, config: ResolvedConfig, space: Any, tokenizer: str, calibration: Calibration | None
) -> ModelParts:  # fmt: skip
    """Put the parts of a classifier together."""
    from nas_meta.outputs.classifier.adaptation import ModelParts
    from nas_meta.outputs.classifier.examples import Preparation
    from nas_meta.tasks.tokenization import load_tokenizer

    preparation = Preparation(
        space.modality,
        None if space.modality == IMAGE else load_tokenizer(tokenizer),
        config.sections.tasks.max_tokens,
        () if space.modality == TEXT else tuple(space.image_shape),
        getattr(learner.options, "template", None),
        config.sections.tasks.class_names,
    )
    return ModelParts(
        encoder, learner, preparation, episode_shape(config).ways, config.sections.learner.name, calibration
    )
