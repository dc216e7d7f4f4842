"""The teacher of distillation: its embeddings of the meta-train examples, computed once and cached."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas_meta.config.model_pooling import own_pooling
from nas_meta.config.pretraining import load_model
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.files import write_atomically
from nas_meta.core.signals import Interrupted
from nas_meta.errors import ConfigError, TrialError
from nas_meta.evaluation.trial import Evaluation
from nas_meta.learners.base import Learner
from nas_meta.learners.training.distillation import Distillation
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.cache import cache_folder
from nas_meta.tasks.episodes import EpisodeShape, episode
from nas_meta.tasks.pool import Pool, Tasks
from nas_meta.tasks.tokenization import load_tokenizer, with_tokenizer

if TYPE_CHECKING:
    from torch import nn

KEY = "learner.training.distill"


def with_teacher(evaluation: Evaluation, resolved: ResolvedConfig) -> Tasks:
    """Add the teacher's embeddings of all meta-train examples to the tasks, as targets of distillation.

    Args:
        evaluation: The evaluation of the search.
        resolved: The config.

    Returns:
        A copy of the tasks whose meta-train pool has ``teacher``, ``[examples, D]``; the tasks unchanged if nothing is
        distilled.

    Raises:
        ConfigError: The teacher cannot be loaded or trained, takes no input of this kind, or the space has no full
            model.
    """
    tasks = evaluation.tasks
    values = [Distillation.model_validate(value) for value in resolved.training("distill")]
    if not any(value.weight for value in values):
        return tasks
    teacher = teacher_of(evaluation, resolved, values[0], KEY).embeddings()  # only a weight alone can be a choice
    return replace(tasks, pools={**tasks.pools, "meta-train": replace(tasks["meta-train"], teacher=teacher)})


@dataclass(frozen=True)
class Teacher:
    """A model whose embeddings are the targets of distillation.

    Attributes:
        model: The model.
        pooling: Pooling of its token states.
        texts: The meta-train examples, tokenised for it.
        training: How it is meta-trained first; None leaves it as it is.
    """

    model: nn.Module
    pooling: str
    texts: Pool
    training: Training | None

    def embeddings(self, stopped: Callable[[], bool] = lambda: False) -> np.ndarray:
        """Train the teacher, if it is to be trained, and embed all meta-train examples; from the cache if it has them.

        Args:
            stopped: Called after every step of the training; returns whether to give up.

        Returns:
            ``[examples, D]``.

        Raises:
            ConfigError: The training failed.
            Interrupted: By ``stopped``.
        """
        training = self.training and replace(self.training, stopped=stopped)
        return cached_embeddings(self.model, self.texts, self.pooling, training)


def teacher_of(evaluation: Evaluation, resolved: ResolvedConfig, distill: Distillation, key: str) -> Teacher:
    """Load the teacher that a config names.

    Args:
        evaluation: The evaluation of the search. The :meth:`SearchSpace.reference` of its space is the teacher unless
            the config names one.
        resolved: The config.
        distill: The options of distillation.
        key: The key of the config that has them, for messages.

    Returns:
        The teacher, not trained yet.

    Raises:
        ConfigError: The teacher cannot be loaded, takes no input of this kind, or the space has no full model.
    """
    pooling, texts = resolved.sections.tasks.pooling, evaluation.tasks["meta-train"]
    if distill.model is None:
        model = evaluation.space.reference()
        if model is None:
            raise ConfigError(
                f"{key} needs a full model to learn from, but the search space has none; expected {key}: 0, a space "
                f"with pretrained weights, or the name of a teacher, such as {key}: {{model: starter:mpnet}}"
            )
    else:
        if not len(texts.texts) or texts.pixels is not None:
            raise ConfigError(
                f"{key}.model '{distill.model}' embeds texts, but the examples have images; expected a number"
            )
        model = load_model(distill.model, f"{key}.model")
        pooling = own_pooling(distill.model) or "mean"
        texts = with_tokenizer(texts, load_tokenizer(distill.model), resolved.sections.tasks.max_tokens)
    evaluation = replace(evaluation, pooling=pooling)
    training = Training(evaluation, resolved.sections.seed, key) if distill.trained else None
    return Teacher(model, pooling, texts, training)


@dataclass(frozen=True)
class Training:
    """How a teacher is meta-trained before it teaches: as the models of the search are, without a teacher of its own.

    Attributes:
        evaluation: The evaluation of the search, with the pooling of the teacher.
        seed: Seed of dropout and of the episodes.
        key: The key of the config that asks for it, for messages.
        stopped: Called after every step; returns whether to give up.
    """

    evaluation: Evaluation
    seed: int
    key: str
    stopped: Callable[[], bool] = lambda: False

    @property
    def learner(self) -> Learner:
        """The learner of the search, without distillation."""
        learner = self.evaluation.learner
        training = learner.options.training.model_copy(update={"distill": Distillation(weight=0.0), "patience": 0})
        return type(learner)(learner.options.model_copy(update={"training": training}))

    @property
    def shape(self) -> EpisodeShape:
        """The shape of the episodes."""
        return self.evaluation.train.of(self.evaluation.shape)

    def fingerprint(self, pool: Pool) -> bytes:
        """Return what the weights of the teacher depend on besides its initial weights and the texts."""
        options = json.dumps(self.learner.options.model_dump(mode="json"), sort_keys=True)
        parts = (type(self.learner).__name__, options, self.shape, self.seed, torch.__version__, pool.classes)
        return repr(parts).encode() + pool.labels.tobytes()

    def __call__(self, model: nn.Module, pool: Pool) -> Encoder:
        """Meta-train a model.

        Args:
            model: The teacher; changed in place.
            pool: The meta-train examples, tokenised for the teacher.

        Returns:
            The trained encoder, on the device of the search if this process has that device, otherwise on the CPU.

        Raises:
            ConfigError: The training failed.
            Interrupted: By :attr:`stopped`.
        """
        learner, shape = self.learner, self.shape
        compute = self.evaluation.compute
        if not torch.cuda.is_available():
            compute = replace(compute, device="cpu")
        evaluation = replace(self.evaluation, learner=learner, compute=compute)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            try:
                encoder = evaluation.encoder(model)
                for _ in learner.meta_train(encoder, pool, lambda i: episode(pool, shape, self.seed, i)):
                    if self.stopped():
                        raise Interrupted(f"{self.key}: the training of the teacher was interrupted")
            except TrialError as error:
                raise ConfigError(f"{self.key}: the teacher cannot be meta-trained: {error}") from error
        return encoder


def embeddings(encoder: Encoder, pool: Pool) -> np.ndarray:
    """Embed all examples of a pool.

    Args:
        encoder: The teacher.
        pool: The examples, tokenised for the teacher.

    Returns:
        ``[examples, D]``.
    """
    with torch.inference_mode():
        return encoder.eval().embed(pool, np.arange(len(pool)), rows=64).float().cpu().numpy()


def cached_embeddings(model: nn.Module, pool: Pool, pooling: str, training: Training | None = None) -> np.ndarray:
    """Return a teacher's embeddings, from the cache if the same teacher has embedded the same examples before.

    Args:
        model: The teacher.
        pool: The examples, tokenised for the teacher.
        pooling: Pooling of the teacher's token states.
        training: How the teacher is meta-trained first; None embeds with the model as it is.

    Returns:
        ``[examples, D]``.
    """
    digest = hashlib.sha256(f"{pooling} {type(model).__name__}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    for array in (pool.tokens, pool.offsets, pool.pixels):
        if array is not None:
            digest.update(array.tobytes())
    if training is not None:
        digest.update(training.fingerprint(pool))
    file = cache_folder() / "teachers" / f"{digest.hexdigest()[:32]}.npy"
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or damaged
        found = embeddings(Encoder(model, pooling) if training is None else training(model, pool), pool)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, found, allow_pickle=False)
        write_atomically(file, buffer.getvalue())
    except OSError:
        return found  # a cache that cannot be written costs time only
    return found
