"""Final training: the best trials of a search are trained further, for longer than a search can train every candidate.

The trials of a search are short, because there are many of them. What is found in the end may be trained for longer,
and with a teacher that would be too slow for every candidate. Liu et al. (2019, "DARTS") call such a step architecture
evaluation; there it starts from random weights, here from those of the trial.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas_meta.evaluation.further_metrics import further_metrics
from nas_meta.evaluation.hyperparameters import with_options
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL
from nas_meta.evaluation.progress import Progress, Result
from nas_meta.learners.training.distillation import Distillation
from nas_meta.models.compute import forget_compiled
from nas_meta.models.profiling import interval95, release_memory
from nas_meta.models.state import serialize_state
from nas_meta.tasks.episodes import episode

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.learners.base import Learner
    from nas_meta.space.architecture import Architecture

OTHER_EPISODES = 2_000_003  # added to the seed, so that the episodes differ from those of the trial


@dataclass(frozen=True)
class FinalTraining:
    """How the model of a trial is trained further.

    Attributes:
        steps: Meta-training steps.
        lr: Largest learning rate; None for that of the trial. The schedule of the trial starts again.
        distill: Distillation that takes the place of the trial's; None keeps that.
        teacher: ``[examples, D]``, the teacher's embeddings of the meta-train examples; None for those of the trial.
    """

    steps: int
    lr: float | None = None
    distill: Distillation | None = None
    teacher: np.ndarray | None = None

    def learner(self, trained: Learner) -> Learner:
        """Return the learner of the final training.

        Args:
            trained: The learner of the trial.
        """
        training = {"patience": 0} | ({"distill": self.distill} if self.distill else {})
        changed = {"steps": self.steps, "training": trained.options.training.model_copy(update=training)}
        return with_options(trained, **changed | ({"lr": self.lr} if self.lr else {}))


def trained_further(
    evaluation: Evaluation, architecture: Architecture, weights: np.ndarray, seed: int, final: FinalTraining
) -> Generator[Progress, None, Result]:
    """Train the model of a trial further, and validate it on the episodes of the trial.

    Args:
        evaluation: The evaluation of the search.
        architecture: Architecture of the trial.
        weights: Its trained weights (safetensors).
        seed: Seed of the trial.
        final: The final training.

    Yields:
        The progress of the training.

    Returns:
        The metrics that training changes, among them the accuracy on meta-validation, and the weights.

    Raises:
        TrialError: The weights belong to another model, or the loss is not finite.
    """
    chosen = evaluation.of(architecture)
    chosen = replace(chosen, learner=final.learner(chosen.learner))
    pool, shape, device = chosen.tasks["meta-train"], chosen.train.of(chosen.shape), chosen.device
    if final.teacher is not None:
        pool = replace(pool, teacher=final.teacher)
    try:
        encoder = chosen.restored(architecture, bytes(weights))
        if chosen.compute.compile:
            encoder.compile()
        torch.manual_seed(seed)
        for step in chosen.learner.meta_train(encoder, pool, lambda i: episode(pool, shape, seed + OTHER_EPISODES, i)):
            yield Progress(step.number, {"loss": step.loss, **step.values})
        with encoder.remembering():
            chosen.finish(encoder)
            found = chosen.accuracies(encoder, "meta-validation", chosen.settings.episodes)
            further = further_metrics(chosen, encoder, chosen.settings.episodes)
        metrics = {ACCURACY: float(found.mean()), ACCURACY + INTERVAL: interval95(found), **further}
        return Result(metrics, serialize_state(encoder))
    finally:
        encoder = None
        if chosen.compute.compile:
            forget_compiled()
        release_memory(device)
