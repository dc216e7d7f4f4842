"""Evaluate an exported model, or any Hugging Face encoder folder, on episodes.

An exported folder also holds what the learner learned (``learner.safetensors``) and its config (``nas_meta.yaml``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.config.compatibility import check_images, check_source
from nas_meta.config.components import make_evaluation
from nas_meta.config.gpu_sharing import on_this_machine
from nas_meta.config.plugin_trust import refuse_plugin_files
from nas_meta.config.problem import episode_shape, with_learner_prompts, with_wanted_names
from nas_meta.config.resolved import ResolvedConfig, read_config
from nas_meta.core.files import similar_sibling
from nas_meta.core.guard import first_line
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.tasks.examples import IMAGE, TEXT

if TYPE_CHECKING:
    import torch

    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.models.encoder import Encoder

LEARNED = "learner.safetensors"
CONFIG = "nas_meta.yaml"


def exported_config(folder: Path, overrides: Sequence[str] = (), allow_plugins: bool = False) -> ResolvedConfig:
    """Read the config that an exported folder holds.

    Args:
        folder: The folder.
        overrides: Overrides of the config, ``section.key=value``.
        allow_plugins: Whether the code of plugin files that the config names may be run.

    Returns:
        The config.

    Raises:
        ConfigError: The config cannot be read or is not valid.
        PluginError: The config names a plugin file.
    """
    import yaml

    file = folder / CONFIG
    if not allow_plugins:
        try:
            document = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise ConfigError(f"{file} cannot be read; expected the config that 'nas-meta export' wrote") from error
        refuse_plugin_files(document if isinstance(document, dict) else {}, folder)
    return read_config(file, overrides)


def learned_state(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Return what a learner learned in addition to the weights of the space's model.

    Args:
        encoder: The trained encoder.

    Returns:
        Tensors of the learner (such as a head, learning rates or a memory) and of the adapters that it inserted.
    """
    adapters = {f"model.{name}" for name in encoder.inserted}
    return {n: t.contiguous() for n, t in encoder.state_dict().items() if n.startswith("learned.") or n in adapters}


def restore_learned(
    encoder: Encoder, state: dict[str, torch.Tensor], evaluation: Evaluation, config: ResolvedConfig, folder: Path
) -> bool:
    """Load what :func:`learned_state` returned into an encoder.

    What evaluation can do without may be missing on either side, so that a model can be evaluated with another distance
    or another head than those of its training; see :meth:`Learner.optional`.

    Args:
        encoder: A new encoder of the learner.
        state: The tensors.
        evaluation: The evaluation, with the learner and the ways that are named in the error.
        config: Config of the evaluation; named in the error.
        folder: Folder of the model; named in the error.

    Returns:
        Whether the state had all that the learner fits after the training; see :meth:`Learner.finish`.

    Raises:
        ConfigError: Names or shapes differ from what the config's learner learns.
    """
    expected = learned_state(encoder)
    apart = {name for name in expected.keys() ^ state.keys() if name.startswith("learned.")}
    optional = {name for name in apart if evaluation.learner.optional(name.removeprefix("learned."))}
    known = {n: t for n, t in state.items() if n not in optional}
    if {n: t.shape for n, t in expected.items() if n not in optional} != {n: t.shape for n, t in known.items()}:
        raise ConfigError(
            f"{Path(folder) / LEARNED} does not fit the learner '{config.sections.learner.name}' with "
            f"{evaluation.shape.ways} ways; expected the config of its training, {Path(folder) / CONFIG}"
        )
    encoder.load_state_dict(known, strict=False)
    return {name for name, _ in encoder.named_buffers()} & expected.keys() <= state.keys()


def evaluate_folder(
    folder: str | Path,
    config: ResolvedConfig,
    split: str = "meta-test",
    episodes: int | None = None,
    shots: int | None = None,
    full_way: bool = False,
    open_set: bool = False,
) -> dict[str, Any]:
    """Measure the accuracy of a Hugging Face encoder folder on episodes, without further meta-training.

    Args:
        folder: Folder of the model.
        config: Config with the tasks and the learner, without searched hyperparameters.
        split: ``meta-train``, ``meta-validation`` or ``meta-test``.
        episodes: Number of episodes, by default 600; of a full-way evaluation, number of draws, by default 10.
        shots: Support examples per class; None takes those of the config.
        full_way: Whether to take all classes of the split at once, as with ``evaluation.protocol: full-way``.
        open_set: Whether to measure also how well queries of other classes are told apart, on 100 episodes.

    Returns:
        ``accuracy`` with its 95% interval (``accuracy_ci95``) over episodes or draws, ``params``, and the shape of the
        tasks; with ``open_set`` also ``oos_auroc`` and ``oos_fpr95`` with their intervals over episodes.

    Raises:
        ConfigError: The folder holds no model of the space, or the split does not exist.
    """
    from safetensors.torch import load_file
    from transformers.utils import logging

    from nas_meta.evaluation.full_way import check_learner, query_count
    from nas_meta.evaluation.protocols import DRAWS, EPISODES, FULL_WAY
    from nas_meta.models.profiling import interval95, parameters
    from nas_meta.models.token_checks import check_tokens, check_weights
    from nas_meta.tasks.episodes import check_shape
    from nas_meta.tasks.source import SPLITS
    from nas_meta.tasks.tokenization import load_tasks, load_tokenizer

    if split not in SPLITS:
        raise ConfigError(f"--split is '{split}'; expected one of {', '.join(SPLITS)}")
    if not (Path(folder) / "config.json").is_file():
        hint = similar_sibling(folder) or "; expected a folder with config.json"
        raise ConfigError(f"{folder} is not a Hugging Face folder{hint}")
    logging.disable_progress_bar()
    if config.searched.choices:
        raise ConfigError(
            f"{next(iter(config.searched.choices))} is a choice of the config; expected a config without choices, such "
            f"as {Path(folder) / CONFIG}"
        )
    section = config.sections.tasks
    source, space = (config.plugin(part)(config.options[part]) for part in ("tasks", "space"))
    check_source(space, source, config)
    tokenizer = None if space.modality == IMAGE else load_tokenizer(str(folder))
    tasks = load_tasks(source, tokenizer, section.max_tokens)
    tasks = with_learner_prompts(config, with_wanted_names(config, space, tasks, tokenizer), tokenizer)
    check_images(space, tasks, config)
    shape = episode_shape(config, shots, tasks)
    check_shape(tasks, shape)
    evaluation = make_evaluation(on_this_machine(config), None, tasks, shape, cpus=0)
    protocol = FULL_WAY if full_way else config.sections.evaluation.protocol
    check_learner(evaluation.learner, protocol)
    settings = dataclasses.replace(evaluation.settings, protocol=protocol)
    evaluation = dataclasses.replace(evaluation, space=space, threads=0, settings=settings)
    count = episodes or (DRAWS if protocol == FULL_WAY else 600)
    ways = shape.ways if protocol == EPISODES else len(tasks[split].classes)
    try:
        model = space.load(Path(folder))
    except ConfigError:
        raise
    except Exception as error:  # a folder may hold anything
        raise ConfigError(f"{folder} cannot be loaded: {first_line(error, with_type=False)}") from error
    check_weights(model, str(folder))
    if space.modality == TEXT:
        check_tokens(model, tasks, str(folder))
    try:
        encoder = evaluation.encoder(model)
        file = Path(folder) / LEARNED
        complete = file.is_file() and restore_learned(encoder, load_file(file), evaluation, config, Path(folder))
        # A head and a distance are chosen for the shots of the evaluation.
        if not complete or shape.shots != section.shots:
            evaluation.finish(encoder)
        scores: np.ndarray = evaluation.accuracies(encoder, split, count)
        further = _open_set(evaluation, encoder, split) if open_set else {}
    except NasMetaError:
        raise
    except Exception as error:
        raise ConfigError(f"{folder} cannot be evaluated: {first_line(error)}") from error
    queries = shape.queries if protocol == EPISODES else query_count(tasks[split], shape, protocol)
    return {
        "model": str(folder), "split": split, "protocol": protocol, "episodes": count, "ways": ways,
        "shots": shape.shots, "class_names": section.class_names, "queries": queries,
        "accuracy": float(scores.mean()), "accuracy_ci95": interval95(scores),
        "params": parameters(model), **further,
    }  # fmt: skip


def _open_set(evaluation: Evaluation, encoder: Encoder, split: str) -> dict[str, Any]:
    """Measure how well queries of other classes are distinguished."""
    from nas_meta.evaluation.open_set import embedded, open_set_metrics, open_tasks
    from nas_meta.learners.metric import MetricLearner

    if not isinstance(evaluation.learner, MetricLearner):
        raise ConfigError(
            f"open-set evaluation compares embeddings, which {type(evaluation.learner).__name__} does not; expected a "
            "learner such as protonet"
        )
    part = embedded(evaluation, encoder, split)
    tasks = open_tasks(part, evaluation.shape, evaluation.settings.seed)
    return {**open_set_metrics(part, tasks), "oos_episodes": len(tasks), "oos_ways": evaluation.shape.ways}
