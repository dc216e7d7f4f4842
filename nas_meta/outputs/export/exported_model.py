"""The winner as a Hugging Face folder, and any such folder scored on episodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.config.compatibility import check_images, check_source
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import episode_shape, with_learner_prompts
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.guard import first_line
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.tasks.examples import IMAGE, TEXT

if TYPE_CHECKING:
    import torch

    from nas_meta.models.encoder import Encoder

LEARNED = "learner.safetensors"
CONFIG = "nas_meta.yaml"


def learned_state(encoder: Encoder) -> dict[str, torch.Tensor]:
    """What the learner learned beside the space's model: its head, rates or memory, and the adapters it put in."""
    own = {f"model.{name}" for name in encoder.inserted}
    return {n: t.contiguous() for n, t in encoder.state_dict().items() if n.startswith("learned.") or n in own}


def restore_learned(encoder: Encoder, state: dict[str, torch.Tensor], config: ResolvedConfig, folder: Path) -> None:
    """Takes over what :func:`learned_state` gave.

    Raises:
        ConfigError: it is not what the config's learner learns.
    """
    own = learned_state(encoder)
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in state.items()}:
        raise ConfigError(
            f"{Path(folder) / LEARNED} does not fit the learner '{config.sections.learner.name}' with "
            f"{config.sections.tasks.ways} ways; evaluate with the config it was trained with, {Path(folder) / CONFIG}"
        )
    encoder.load_state_dict(state, strict=False)


def evaluate_folder(
    folder: str | Path,
    config: ResolvedConfig,
    split: str = "meta-test",
    episodes: int = 600,
    shots: int | None = None,
) -> dict[str, Any]:
    """Accuracy of a Hugging Face encoder folder on episodes of a config's tasks, without further meta-training.

    Raises:
        ConfigError: the folder holds no model, or the split does not exist.
    """
    from safetensors.torch import load_file
    from transformers.utils import logging

    from nas_meta.models.profiling import interval95, parameters
    from nas_meta.models.token_checks import check_tokens, check_weights
    from nas_meta.tasks.episodes import check_shape
    from nas_meta.tasks.source import SPLITS
    from nas_meta.tasks.tokenization import load_tasks, load_tokenizer

    if split not in SPLITS:
        raise ConfigError(f"--split is '{split}'; expected one of {', '.join(SPLITS)}")
    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(f"{folder} is not a Hugging Face folder: it has no config.json")
    logging.disable_progress_bar()
    if config.searched.choices:
        raise ConfigError(
            f"{next(iter(config.searched.choices))} is a choice of the config; expected a config without choices, such "
            f"as the folder's own, {Path(folder) / CONFIG}"
        )
    section = config.sections.tasks
    source, space = (config.plugin(part)(config.options[part]) for part in ("tasks", "space"))
    check_source(space, source, config)
    tokenizer = None if space.modality == IMAGE else load_tokenizer(str(folder))
    tasks = with_learner_prompts(config, load_tasks(source, tokenizer, section.max_tokens), tokenizer)
    check_images(space, tasks, config)
    shape = episode_shape(config, shots)
    check_shape(tasks, shape)
    evaluation = dataclasses.replace(make_evaluation(config, None, tasks, shape, cpus=0), space=space, threads=0)
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
        if (Path(folder) / LEARNED).is_file():
            restore_learned(encoder, load_file(Path(folder) / LEARNED), config, folder)
        scores: np.ndarray = evaluation.accuracies(encoder, split, episodes)
    except NasMetaError:
        raise
    except Exception as error:
        raise ConfigError(f"{folder} cannot be evaluated: {first_line(error)}") from error
    return {
        "model": str(folder), "split": split, "episodes": episodes, "ways": shape.ways, "shots": shape.shots,
        "queries": shape.queries, "accuracy": float(scores.mean()), "accuracy_ci95": interval95(scores),
        "params": parameters(model),
    }  # fmt: skip
