"""Write the trained model of a trial as a Hugging Face folder: weights, tokenizer, config and model card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from nas_meta.config.components import make_evaluation
from nas_meta.config.environment import shareable
from nas_meta.config.problem import episode_shape, make_space
from nas_meta.core.files import make_public, refuse_occupied
from nas_meta.core.guard import plugin_call
from nas_meta.errors import PluginError
from nas_meta.evaluation.calibration import CALIBRATION
from nas_meta.journal.run import Run
from nas_meta.models.compute import Compute
from nas_meta.outputs.changes import warn_of_changes
from nas_meta.outputs.export.calibrating import calibrated, identity
from nas_meta.outputs.export.exported_model import CONFIG, LEARNED, learned_state
from nas_meta.outputs.export.model_card import model_card
from nas_meta.outputs.export.own_code import drop_foreign_code
from nas_meta.outputs.export.sentence_transformer import on_unit_sphere, with_padding, write_modules
from nas_meta.space.wrappers import space_name
from nas_meta.tasks.examples import IMAGE, TEXT


def export(run: Run, folder: str | Path, trial_id: int | None = None, changes: bool = True) -> Path:
    """Write the trained model of a trial as a Hugging Face folder.

    A model of texts comes with its tokenizer, a model of images with its image processor. The folder also holds a model
    card, the config of the trial, and what the learner learned in addition to the model.

    Args:
        run: The run.
        folder: New or empty folder.
        trial_id: ID of the trial; by default the best trial.
        changes: Whether to log a warning if the models of the run have changed.

    Returns:
        The folder.

    Raises:
        RunError: The weights of the trial were not kept, or the folder is not empty.
        PluginError: The space does not write a Hugging Face folder.
    """
    folder = Path(folder)
    trial = run.best if trial_id is None else run.trial(trial_id)
    weights = run.weights_of(trial)
    refuse_occupied(folder)
    from safetensors.torch import save_file

    from nas_meta.models.adapters import without_adapters
    from nas_meta.tasks.sources.images import save_processor
    from nas_meta.tasks.tokenization import load_tokenizer

    if changes:
        warn_of_changes(run)
    space = make_space(run.config)
    architecture = space.canonical(trial.architecture)  # a damaged journal may name values that the space lacks
    evaluation = make_evaluation(run.config, space, None, episode_shape(run.config), cpus=0)
    evaluation = dataclasses.replace(evaluation, compute=Compute())
    encoder = evaluation.restored(architecture, weights).eval()
    chosen = evaluation.of(architecture)
    calibration = calibrated(run.config, space, chosen, encoder)
    folder.mkdir(parents=True, exist_ok=True)
    if calibration is not None:
        document = calibration.as_json(identity(chosen.learner, encoder.pooling))
        (folder / CALIBRATION).write_text(document + "\n", encoding="utf-8")
    if learned := learned_state(encoder):
        save_file(learned, folder / LEARNED)
    # Adapters that the learner inserted are in the learner's file; the space saves only the model that it built.
    model = without_adapters(encoder.model, merge=False) if encoder.inserted else encoder.model
    with plugin_call(space, "save"):
        space.save(model, architecture, folder)
    if not (folder / "config.json").is_file():
        raise PluginError(f"{space_name(space)}.save() wrote no config.json; expected a Hugging Face folder")
    if space.modality != IMAGE:
        with_padding(load_tokenizer(space.tokenizer)).save_pretrained(folder)
    if space.modality != TEXT:
        save_processor(space.image_shape, folder)
    drop_foreign_code(folder)
    config = run.config.at(architecture, space.pooling(architecture))
    public = yaml.safe_dump(shareable(config.document), sort_keys=False)
    (folder / CONFIG).write_text(public, encoding="utf-8")
    if space.modality == TEXT:
        section = config.sections.tasks
        unit = on_unit_sphere(config.options["learner"])
        write_modules(folder, section.pooling, encoder.width, section.max_tokens, unit)
    (folder / "README.md").write_text(
        model_card(run, trial, space, folder, config.sections, calibration), encoding="utf-8"
    )
    make_public(folder)
    return folder
