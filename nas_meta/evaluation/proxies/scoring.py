"""Score an architecture with zero-cost proxies, on the model and the episodes that its trial would use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from nas_meta.errors import TrialError
from nas_meta.evaluation.proxies import load_proxy
from nas_meta.evaluation.proxies.base import ProxyInputs
from nas_meta.evaluation.trial import Evaluation
from nas_meta.models.checks import check_model
from nas_meta.models.compute import Compute
from nas_meta.space.architecture import Architecture
from nas_meta.tasks.episodes import EpisodeShape, episode

QUERIES = 200  # of all episodes together, enough to rank sub-networks (Spearman 0.96 with other episodes)
EPISODES_FROM = 2_000_000  # number of the first episode, far above the numbers of the episodes that trials train on


def proxy_scores(
    evaluation: Evaluation, architecture: Architecture, names: Sequence[str], seed: int
) -> dict[str, float]:
    """Compute zero-cost proxies of an architecture on the CPU.

    The global random state of torch is left as it was.

    Args:
        evaluation: The evaluation of the search.
        architecture: The architecture to score.
        names: Names from :data:`~nas_meta.evaluation.proxies.PROXIES`.
        seed: Seed of the initial weights and of the episodes.

    Returns:
        The scores by name; higher is better.

    Raises:
        TrialError: The space does not build a suitable model, or a score is not a finite number.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _score(evaluation.of(architecture), architecture, names, seed)


def episodes_of(shape: EpisodeShape) -> int:
    """Return the number of episodes that proxies are computed on: few large ones, or more small ones.

    Args:
        shape: Shape of the episodes that trials train on.
    """
    return max(4, math.ceil(QUERIES / (shape.ways * shape.queries)))


def _score(evaluation: Evaluation, architecture: Architecture, names: Sequence[str], seed: int) -> dict[str, float]:
    """Return the scores of an architecture by its own evaluation, whose searched hyperparameters are set."""
    model = evaluation.space.build(architecture)
    check_model(model, evaluation.space)
    encoder = replace(evaluation, compute=Compute()).encoder(model).eval()
    pool, shape = evaluation.tasks["meta-train"], evaluation.train.of(evaluation.shape)
    tasks = [episode(pool, shape, seed, EPISODES_FROM + i) for i in range(episodes_of(shape))]
    inputs = ProxyInputs(pool, tasks, evaluation.learner)
    scores = {}
    for name in names:
        scores[name] = load_proxy(name)(encoder, inputs)
        if not np.isfinite(scores[name]):
            raise TrialError(f"the score {name} is {scores[name]}; expected a finite number")
    return scores
