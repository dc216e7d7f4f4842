"""One architecture as a trial treats it, in small: built, trained for a step, adapted, saved, reloaded and compared."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nas_meta.core.guard import first_line
from nas_meta.errors import NasMetaError, TrialError
from nas_meta.learners.training.distillation import Distillation
from nas_meta.models.adapters import adapter_names, without_adapters
from nas_meta.models.checks import check_model
from nas_meta.models.compute import Compute
from nas_meta.models.encoder import Encoder
from nas_meta.models.evaluating import inference
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import WrappedSpace
from nas_meta.tasks.episodes import EpisodeShape, episode

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.space.architecture import Architecture

EXAMPLES = 4  # compared before and after saving
TOLERANCE = 1e-3  # of the largest number of an embedding; equal models differ by 1e-6
NOISE = 0.1  # standard deviation of what parameters that start at zero get, so that leaving them out shows


def model_problem(evaluation: Evaluation, architecture: Architecture, seed: int, pretrained: bool) -> str | None:
    """Return why the model of an architecture cannot be trained or exported.

    The model takes one training step on one small episode, adapts to a support set, is saved, and is loaded again by
    plain transformers and by its space. The global random state is unchanged afterwards.

    Args:
        evaluation: The evaluation of the trials; models compute on the CPU here.
        architecture: An architecture of its space.
        seed: Seed of initial weights and of the episode.
        pretrained: Whether the space cuts its models from a pretrained one. If so, a model that torch or nas-meta
            cannot train is a choice that does not fit the pretrained model; otherwise it only fails its trial, and the
            search continues.

    Returns:
        A clause such as ``cannot be exported (its save() writes no config.json)``; None if nothing is wrong, or if only
        a trial would report it.
    """
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        try:
            encoder = _trained(evaluation, architecture, seed)
        except (NasMetaError, RuntimeError) as error:
            if "allocate memory" in str(error):
                return None  # a machine without room, not the architecture
            return f"cannot be trained ({reason_of(error)})" if pretrained else None
        except (Exception, SystemExit):  # of this plugin and this architecture: its trial reports it
            return None
        try:
            problem = _export_problem(encoder, evaluation, architecture)
            return None if problem is None else f"cannot be exported ({problem})"
        except Exception as error:
            if isinstance(error, OSError) or "(os error" in str(error):
                return None  # a disk without room, not the architecture
            return f"cannot be exported ({reason_of(error)})"


def reason_of(error: BaseException) -> str:
    """Return an exception as one line, with the first mismatch if the weights of a model do not fit.

    Args:
        error: The exception.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    if lines and lines[0].startswith("Error(s) in loading state_dict") and len(lines) > 1:
        return f"weights do not fit: {lines[1].rstrip('.')}"
    return first_line(error).rstrip(".")


def _trained(evaluation: Evaluation, architecture: Architecture, seed: int) -> Encoder:
    """Return the encoder of an architecture after one training step and one adaptation on small episodes."""
    evaluation = dataclasses.replace(evaluation.of(architecture), compute=Compute(), threads=0)
    space, learner = evaluation.space, evaluation.learner
    model = space.build(architecture)
    try:
        check_model(model, space)
    except NasMetaError:
        raise
    except Exception as error:  # nothing but the model runs here
        raise TrialError(reason_of(error)) from error
    encoder = evaluation.encoder(model)
    # The embeddings of the teacher are not here.
    training = learner.options.training.model_copy(update={"distill": Distillation(weight=0.0)})
    learner = type(learner)(learner.options.model_copy(update={"meta_batch": 1, "training": training}))
    pool = evaluation.tasks["meta-train"]
    train = small(evaluation.train.of(evaluation.shape))
    steps = learner.meta_train(encoder, pool, lambda i: episode(pool, train, seed, i))
    next(iter(steps), None)
    learner.accuracies(encoder, pool, [episode(pool, small(evaluation.shape), seed, 0)])
    return encoder


def small(shape: EpisodeShape) -> EpisodeShape:
    """Return the shape of an episode with at most two shots and one query.

    Args:
        shape: Shape of the episodes of a search; its number of ways is kept, because heads depend on it.
    """
    return EpisodeShape(shape.ways, min(shape.shots, 2), 1)


def _export_problem(encoder: Encoder, evaluation: Evaluation, architecture: Architecture) -> str | None:
    """Return how a reloaded model differs from the saved one; None if it does not, or if the space cannot export."""
    space, model = evaluation.space, encoder.model
    if encoder.inserted:  # kept in the learner's own file
        model = without_adapters(model, merge=False)
    if not exports(space, model):
        return None
    disturb(model)
    pool = evaluation.tasks["meta-train"]
    examples = np.linspace(0, len(pool) - 1, EXAMPLES, dtype=int)
    inputs = {name: torch.from_numpy(array) for name, array in pool.inputs(examples).items()}
    expected = _embeddings(model, encoder.pooling, inputs)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        space.save(model, architecture, folder)
        if not (folder / "config.json").is_file():
            return "its save() writes no config.json"
        del model, encoder.model
        for load in _loaders(space, folder):
            found = _embeddings(load(folder), encoder.pooling, inputs)
            if found.shape != expected.shape:
                return f"its export gives embeddings of shape {list(found.shape)} instead of {list(expected.shape)}"
            difference = float((found - expected).abs().max())
            if not difference <= TOLERANCE * max(float(expected.abs().max()), 1e-6):
                return f"its export gives other embeddings, which differ by {difference:.2g}"
    return None


def exports(space: SearchSpace, model: nn.Module) -> bool:
    """Return whether a space writes models: it defines ``save``, or its models have a ``save_pretrained``.

    Args:
        space: The space, wrapped or not.
        model: A model that it built.
    """
    while isinstance(space, WrappedSpace):
        space = space.space
    return type(space).save is not SearchSpace.save or hasattr(model, "save_pretrained")


@torch.no_grad()
def disturb(model: nn.Module) -> None:
    """Add noise to what begins as zeros or ones, in place: adapters, biases and the scales of norms.

    Args:
        model: A model; if its file leaves one of these parameters out, the reloaded model differs afterwards.
    """
    names = set(adapter_names(model))
    for name, parameter in model.named_parameters():
        if name in names or parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter), alpha=NOISE)


def plain_model(folder: Path) -> nn.Module:
    """Load a folder as a user without nas-meta does; no code of the folder is run.

    Args:
        folder: A folder that a space wrote.
    """
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, trust_remote_code=False)


def _loaders(space: SearchSpace, folder: Path) -> list[Callable[[Path], nn.Module]]:
    """How a folder is loaded: by its space, if that has a format of its own; else by plain transformers, or both."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    while isinstance(space, WrappedSpace):
        space = space.space
    own = type(space).load is not SearchSpace.load
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config:  # code in a folder is not run here
        return [space.load] if own else []
    if not own:
        return [plain_model]
    return [plain_model, space.load] if config.get("model_type") in CONFIG_MAPPING_NAMES else [space.load]


def _embeddings(model: nn.Module, pooling: str, inputs: dict[str, Tensor]) -> Tensor:
    with inference(Encoder(model, pooling)) as encoder:
        return encoder(**inputs)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and progress bars of transformers inside the block."""
    from transformers.utils import logging

    level: Any = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
