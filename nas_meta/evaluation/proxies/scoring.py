"""What a score sees, and the scores of an architecture as its trial would build and train it."""

from __future__ import annotations

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
from nas_meta.tasks.episodes import episode

EPISODES = 16
EPISODES_FROM = 2_000_000  # trials are trained on others


def proxy_scores(
    evaluation: Evaluation, architecture: Architecture, names: Sequence[str], seed: int
) -> dict[str, float]:
    """The scores of an architecture by name, on the CPU; the same seed gives the same initial weights and episodes.

    Raises:
        TrialError: what the space builds is no model of texts, or a score is not a finite number.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _scored(evaluation.of(architecture), architecture, names, seed)


def _scored(own: Evaluation, architecture: Architecture, names: Sequence[str], seed: int) -> dict[str, float]:
    model = own.space.build(architecture)
    check_model(model, own.space)
    encoder = replace(own, compute=Compute()).encoder(model).eval()
    pool, shape = own.tasks["meta-train"], own.train.of(own.shape)
    tasks = [episode(pool, shape, seed, EPISODES_FROM + i) for i in range(EPISODES)]
    sample = ProxyInputs(pool, tasks, own.learner)
    found = {}
    for name in names:
        found[name] = load_proxy(name)(encoder, sample)
        if not np.isfinite(found[name]):
            raise TrialError(f"the score {name} is {found[name]}; expected a finite number")
    return found
