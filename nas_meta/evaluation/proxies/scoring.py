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
from nas_meta.learners.metric import MetricLearner
from nas_meta.models.checks import check_model
from nas_meta.models.compute import Compute
from nas_meta.space.architecture import Architecture
from nas_meta.tasks.episodes import Episode, EpisodeShape, episode, episodes
from nas_meta.tasks.pool import Pool

# Learners that compare embeddings are scored on many episodes of few examples, each of which is embedded only once.
CLASSES, CLASS_QUERIES, EPISODES = 40, 5, 100
QUERIES = 200  # of all episodes together, for learners that adapt to every episode
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


def few_episodes(pool: Pool, shape: EpisodeShape, seed: int) -> list[Episode]:
    """Draw a few large episodes, or more small ones.

    Args:
        pool: The meta-train examples.
        shape: Shape of the episodes that trials train on.
        seed: Seed of the episodes.
    """
    count = max(4, math.ceil(QUERIES / (shape.ways * shape.queries)))
    return [episode(pool, shape, seed, EPISODES_FROM + i) for i in range(count)]


def episodes_of_few_examples(pool: Pool, shape: EpisodeShape, seed: int) -> list[Episode]:
    """Draw :data:`EPISODES` episodes from a few examples of :data:`CLASSES` classes, or of as many as an episode needs.

    Args:
        pool: The meta-train examples.
        shape: Shape of the episodes that trials train on. The episodes have its ways and shots, and
            :data:`CLASS_QUERIES` queries per class where the classes have as many examples.
        seed: Seed of the classes, the examples and the episodes.
    """
    rng = np.random.default_rng([seed, EPISODES_FROM])
    groups = [group for group in pool.choices if len(group) >= shape.ways]
    drawn: list[int] = []
    for group in (groups[i] for i in rng.permutation(len(groups))):
        if len(drawn) < CLASSES:
            drawn.extend(rng.permutation(group)[: max(shape.ways, CLASSES - len(drawn))])
    classes = np.sort(drawn)
    fewest = min(len(pool.members[c]) for c in classes)
    queries = max(shape.queries, min(CLASS_QUERIES, fewest - shape.shots))
    members = [rng.choice(pool.members[c], shape.shots + queries, replace=False) for c in classes]
    part, rows = pool.labels_alone(np.sort(np.concatenate(members)), classes)
    tasks = episodes(part, EpisodeShape(shape.ways, shape.shots, queries), seed, EPISODES)
    return [Episode(rows[task.support], rows[task.query]) for task in tasks]


def _score(evaluation: Evaluation, architecture: Architecture, names: Sequence[str], seed: int) -> dict[str, float]:
    """Return the scores of an architecture by its own evaluation, whose searched hyperparameters are set."""
    model = evaluation.space.build(architecture)
    check_model(model, evaluation.space)
    encoder = replace(evaluation, compute=Compute()).encoder(model).eval()
    pool, shape = evaluation.tasks["meta-train"], evaluation.train.of(evaluation.shape)
    draw = episodes_of_few_examples if isinstance(evaluation.learner, MetricLearner) else few_episodes
    inputs = ProxyInputs(pool, draw(pool, shape, seed), evaluation.learner)
    scores = {}
    for name in names:
        scores[name] = load_proxy(name)(encoder, inputs)
        if not np.isfinite(scores[name]):
            raise TrialError(f"the score {name} is {scores[name]}; expected a finite number")
    return scores
