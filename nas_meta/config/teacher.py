"""The teacher of distillation: its embeddings of the meta-train examples, computed once and cached."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.config.model_pooling import own_pooling
from nas_meta.config.pretraining import load_model
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.files import write_atomically
from nas_meta.errors import ConfigError
from nas_meta.learners.training.options import Distillation
from nas_meta.space.search_space import SearchSpace
from nas_meta.tasks.cache import cache_folder
from nas_meta.tasks.pool import Pool, Tasks
from nas_meta.tasks.tokenization import load_tokenizer, with_tokenizer

if TYPE_CHECKING:
    from torch import nn

KEY = "learner.training.distill"


def with_teacher(tasks: Tasks, space: SearchSpace, resolved: ResolvedConfig) -> Tasks:
    """Add the teacher's embeddings of all meta-train examples to the tasks, as targets of distillation.

    Args:
        tasks: The tokenised tasks.
        space: The search space, whose :meth:`SearchSpace.reference` is the teacher unless the config names one.
        resolved: The config.

    Returns:
        A copy of the tasks whose meta-train pool has ``teacher``, ``[examples, D]``; the tasks unchanged if nothing is
        distilled.

    Raises:
        ConfigError: The teacher cannot be loaded, takes no input of this kind, or the space has no full model.
    """
    values = [Distillation.model_validate(value) for value in resolved.training("distill")]
    if not any(value.weight for value in values):
        return tasks
    named = values[0].model
    pool, pooling = tasks["meta-train"], resolved.sections.tasks.pooling
    if named is None:
        model = space.reference()
        if model is None:
            raise ConfigError(
                f"{KEY} needs a full model to learn from, but the search space has none; expected distill: 0, a space "
                f"with pretrained weights, or the name of a teacher, such as {KEY}: {{model: starter:mpnet}}"
            )
        teacher = embeddings(model, pool, pooling)
    else:
        if not len(pool.texts) or pool.pixels is not None:
            raise ConfigError(f"{KEY}.model '{named}' embeds texts, but the examples have images; expected a number")
        model = load_model(named, f"{KEY}.model")
        texts = with_tokenizer(pool, load_tokenizer(named), resolved.sections.tasks.max_tokens)
        teacher = cached_embeddings(model, texts, own_pooling(named) or "mean")
    return replace(tasks, pools={**tasks.pools, "meta-train": replace(pool, teacher=teacher)})


def embeddings(model: nn.Module, pool: Pool, pooling: str) -> np.ndarray:
    """Embed all examples of a pool.

    Args:
        model: The teacher.
        pool: The examples, tokenised for the teacher.
        pooling: Pooling of the teacher's token states.

    Returns:
        ``[examples, D]``.
    """
    import torch

    from nas_meta.models.encoder import Encoder

    with torch.inference_mode():
        return Encoder(model, pooling).eval().embed(pool, np.arange(len(pool)), rows=64).numpy()


def cached_embeddings(model: nn.Module, pool: Pool, pooling: str) -> np.ndarray:
    """Return :func:`embeddings`, from the cache if the same model has embedded the same tokens before.

    Args:
        model: As in :func:`embeddings`.
        pool: As in :func:`embeddings`.
        pooling: As in :func:`embeddings`.
    """
    digest = hashlib.sha256(f"{pooling} {type(model).__name__}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    for array in (pool.tokens, pool.offsets):
        digest.update(array.tobytes())
    file = cache_folder() / "teachers" / f"{digest.hexdigest()[:32]}.npy"
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or damaged
        found = embeddings(model, pool, pooling)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, found, allow_pickle=False)
        write_atomically(file, buffer.getvalue())
    except OSError:
        return found  # a cache that cannot be written costs time only
    return found
