"""MetaNAS (Elsken et al. 2020): meta-learns weights and architecture together, so that each task gets an architecture.

Each task i of a meta-batch is adapted to (w_i, α_i) by :mod:`strategies.metanas.task_learner`. Then the initialisation
(w, α) is updated, either by Reptile,

    w ← w + λ · 1/n Σ (w_i - w),    α ← α + λ · 1/n Σ (α_i - α)    (the paper's equation 5, λ falling to zero),

or by FOMAML, along the gradient of the query loss at (w_i, α_i), averaged over the tasks.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from nas_meta import Architecture, Outcome, PluginOptions, SearchContext, Strategy
from nas_meta.evaluation.progress import JobResult, Progress
from nas_meta.evaluation.trial import Evaluation
from nas_meta.learners.base import finite
from nas_meta.learners.reptile import set_values
from nas_meta.models.encoder import Encoder
from nas_meta.models.state import deserialize_state, restore_training, serialize_state, serialize_training
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import space_name
from nas_meta.strategy.protocol import Adapted
from nas_meta.tasks.episodes import Episode, episode
from nas_meta.tasks.pool import Pool
from strategies.metanas.most_probable import most_probable
from strategies.metanas.task_learner import SCALE, Head, TaskLearner, Tempered, scaled_embeddings
from strategies.one_shot.base import probability_scalars, serialize_weights
from strategies.one_shot.nni_supermodules import choice_supernet, differentiable, is_alpha, weights_of

VALIDATION = "meta-validation"


class MetaNASOptions(PluginOptions):
    """Options of ``metanas``."""

    steps: int = Field(200, ge=1, description="meta-steps, each over a meta-batch of tasks")
    method: Literal["reptile", "fomaml"] = Field(
        "reptile", description="how the initialisation is updated: by Reptile or by first-order MAML"
    )
    meta_batch: int = Field(2, ge=1, description="tasks per meta-step")
    inner_steps: int = Field(5, ge=1, description="gradient steps on each task during meta-training")
    adapt_steps: int = Field(10, ge=1, description="gradient steps on the support set of a new task")
    task_lr: float = Field(1e-3, gt=0, description="learning rate of Adam for the weights, within a task")
    task_arch_lr: float = Field(
        0.1, gt=0, description="learning rate of Adam for the architecture parameters, within a task"
    )
    head_lr: float = Field(
        1e-2, gt=0, description="learning rate of Adam for the head, within a task; the head starts at the prototypes"
    )
    last_temperature: float = Field(
        0.05, gt=0, lt=1, description="temperature of the choices at the end of a task; it falls from 1"
    )
    outer_lr: float = Field(
        0.5, gt=0, le=1, description="learning rate of the initialisation at the start; it falls to zero (reptile)"
    )
    meta_lr: float = Field(1e-3, gt=0, description="learning rate of Adam for the initialisation (fomaml)")
    judged: int = Field(
        20,
        ge=1,
        description="meta-validation tasks that are adapted to after the training, to propose their architectures",
    )
    checkpoint_every: int = Field(50, ge=1, description="meta-steps between two checkpoints of the supernet")


class MetaNAS(Strategy):
    """MetaNAS (Elsken et al. 2020): meta-learns a supernet and proposes the architectures that tasks adapt to.

    ``nas-meta adapt`` then gives a new task a model with an architecture for that task.

    Raises:
        ConfigError: The space has no supernet that is made of choices.
    """

    Options = MetaNASOptions

    def __init__(self, context: SearchContext, options: MetaNASOptions | None = None):
        super().__init__(context, options)
        self._supernet = choice_supernet(context.space.supernet(), "metanas", space_name(context.space))
        self._proposals: deque[Architecture] = deque()

    def job(self) -> MetaNASJob:
        return MetaNASJob(self.options, self.context.trials, self.context.seed)

    def receive(self, findings: Mapping[str, Any], weights: np.ndarray | None) -> None:
        self._supernet.load_state_dict(deserialize_state(bytes(weights)))
        self._alphas = findings["alphas"]
        self._proposals.extend(Architecture(values) for values in findings["architectures"])

    def ask(self) -> Architecture | None:
        return self._proposals.popleft() if self._proposals else None

    def tell(self, outcome: Outcome) -> None:
        """Do nothing: trials only measure the proposed architectures when they are trained alone."""

    def start_of(self, architecture: Architecture) -> np.ndarray:
        return serialize_state(self._supernet.extract(architecture))

    def adapted(self, evaluation: Evaluation, pool: Pool, support: Sequence[np.ndarray]) -> Adapted:
        """Adapt the meta-learned supernet to the task by a few gradient steps and discretise its architecture."""
        torch.manual_seed(self.context.seed)
        meta = MetaLearner(evaluation, self.options)
        state = {f"model.{name}": tensor for name, tensor in self._supernet.state_dict().items()}
        meta.encoder.load_state_dict(state, strict=False)
        with torch.no_grad():
            for name, alpha in meta.learner.modules.alphas.items():
                alpha.copy_(torch.tensor(self._alphas[name]))
        head = meta.adapt(pool, support)
        architecture, model = meta.harden()
        return Adapted(architecture, model, SCALE**0.5 * head.weight.detach(), head.bias.detach())


class MetaLearner:
    """Meta-learns the weights and architecture parameters of a supernet as one initialisation for all tasks.

    Args:
        evaluation: The evaluation, which defines space, tasks and device.
        options: The options of the strategy.

    Attributes:
        supernet: The supernet, whose choices are NNI's super-modules.
        encoder: The encoder with the supernet as its model.
        learner: Adapts the supernet to a task.
    """

    def __init__(self, evaluation: Evaluation, options: MetaNASOptions):
        self.evaluation, self.options = evaluation, options
        self.space: SearchSpace = evaluation.space
        self.supernet = choice_supernet(self.space.supernet(), "metanas", space_name(self.space))
        softmax = Tempered()
        modules = differentiable(self.supernet, softmax)
        self.encoder = Encoder(self.supernet, evaluation.pooling, evaluation.compute).to(evaluation.device)
        self.encoder.frozen |= {name for name, _ in self.encoder.model.named_parameters() if is_alpha(name)}
        self.learner = TaskLearner(self.encoder, modules, softmax, options)
        for parameter in self.encoder.parameters():
            parameter.requires_grad_(False)
        for parameter in self.learner.moving:
            parameter.requires_grad_(True)

    def values(self) -> list[Tensor]:
        """Return a copy of the initialisation: the weights, then the architecture parameters."""
        return [p.detach().clone() for p in self.learner.moving]

    def adapt(self, pool: Pool, support: Sequence[np.ndarray]) -> Head:
        """Adapt to a support set, in place.

        Args:
            pool: The pool of the support examples.
            support: The indices of the examples of each class.

        Returns:
            The classifier of the task.
        """
        labels = np.repeat(np.arange(len(support)), [len(rows) for rows in support])
        self.encoder.eval()
        return self.learner.adapt(pool, support, np.concatenate(support), labels, self.options.adapt_steps)[0]

    def harden(self) -> tuple[Architecture, torch.nn.Module]:
        """Return the most probable architecture and its stand-alone model.

        Returns:
            The architecture, and the model with its part of the supernet's current weights, in evaluation mode.
        """
        architecture = most_probable(self.space, self.learner.probabilities(), 1, 0)[0]
        plain = self.space.supernet().to(self.evaluation.device)
        plain.load_state_dict(weights_of(self.supernet))
        return architecture, plain.extract(architecture).eval()

    def reptile_step(self, pool: Pool, tasks: list[Episode], outer: float) -> float:
        """Update the initialisation by Reptile (equation 5 of the paper).

        Args:
            pool: The pool of the tasks.
            tasks: The meta-batch. Each task is adapted to on its support and query examples.
            outer: λ, the share of the way to the mean of the adapted parameters.

        Returns:
            The mean of the tasks' last losses.
        """
        start, total = self.values(), 0.0
        ends = [torch.zeros_like(p) for p in start]
        self.encoder.train()
        for task in tasks:
            labels = np.concatenate([task.support_labels, task.labels])
            _, loss = self.learner.adapt(pool, task.support, task.indices, labels, self.options.inner_steps)
            total += loss / len(tasks)
            for end, p in zip(ends, self.learner.moving, strict=True):
                end.add_(p.detach() / len(tasks))
            set_values(self.learner.moving, start)
        for p, end in zip(start, ends, strict=True):
            p.lerp_(end, outer)
        set_values(self.learner.moving, start)
        return total

    def fomaml_step(self, pool: Pool, tasks: list[Episode], optimizer: torch.optim.Optimizer) -> float:
        """Update the initialisation by FOMAML: along the mean gradient of the query losses after adaptation.

        Args:
            pool: The pool of the tasks.
            tasks: The meta-batch. Each task is adapted to on its support examples.
            optimizer: Takes the step; holds the parameters of ``learner.moving``.

        Returns:
            The mean query loss after adaptation.
        """
        start, total = self.values(), 0.0
        gradients = [torch.zeros_like(p) for p in start]
        self.encoder.train()
        for task in tasks:
            indices, labels = task.support.ravel(), task.support_labels
            head, _ = self.learner.adapt(pool, task.support, indices, labels, self.options.inner_steps)
            logits = head(self.learner.features(pool, task.query.ravel()))
            loss = F.cross_entropy(logits, torch.from_numpy(task.labels).to(logits.device)) / len(tasks)
            task_gradients = torch.autograd.grad(loss, self.learner.moving, allow_unused=True, materialize_grads=True)
            for summed, gradient in zip(gradients, task_gradients, strict=True):
                summed.add_(gradient)
            total += float(loss.detach())
            set_values(self.learner.moving, start)
        for parameter, gradient in zip(self.learner.moving, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    def evaluate(self, task: Episode) -> dict[str, Any]:
        """Adapt to a meta-validation task and measure the result; the initialisation is restored.

        Args:
            task: An episode of the meta-validation classes.

        Returns:
            The ``architecture`` of the task, and the accuracy on its query examples of the ``mixture`` and of the
            ``hardened`` stand-alone model.
        """
        pool, start = self.evaluation.tasks[VALIDATION], self.values()
        try:
            head = self.adapt(pool, task.support)
            architecture, model = self.harden()
            hardened = Encoder(model, self.evaluation.pooling, self.evaluation.compute)
            hardened.to(self.evaluation.device).eval()
            with torch.inference_mode():
                soft, hard = (
                    (head(scaled_embeddings(e, pool, task.query.ravel())).argmax(1).cpu().numpy() == task.labels).mean()
                    for e in (self.encoder, hardened)
                )
            return {"architecture": dict(architecture.values), "mixture": float(soft), "hardened": float(hard)}
        finally:
            set_values(self.learner.moving, start)


@dataclass(frozen=True)
class MetaNASJob:
    """Meta-trains the supernet on one worker, then adapts to tasks (:class:`nas_meta.strategy.Job`).

    Attributes:
        options: The options of the strategy.
        trials: The number of architectures to propose.
        seed: The seed of the search.
    """

    options: MetaNASOptions
    trials: int
    seed: int

    @property
    def steps(self) -> int:
        return self.options.steps + self.options.judged

    def __call__(
        self, evaluation: Evaluation, checkpoint: np.ndarray | None = None
    ) -> Generator[Progress, None, JobResult]:
        o = self.options
        torch.manual_seed(self.seed)
        meta = MetaLearner(evaluation, o)
        optimizer = torch.optim.Adam(meta.learner.moving, o.meta_lr)
        pool, shape = evaluation.tasks["meta-train"], evaluation.train.of(evaluation.shape)
        done = 0
        if checkpoint is not None:
            parts = restore_training(checkpoint, meta.encoder)
            done = parts["step"]
            optimizer.load_state_dict(parts["optimizer"])
        for step in range(done, o.steps):
            tasks = [episode(pool, shape, self.seed, step * o.meta_batch + i) for i in range(o.meta_batch)]
            if o.method == "reptile":
                loss = meta.reptile_step(pool, tasks, o.outer_lr * (1 - step / o.steps))
            else:
                loss = meta.fomaml_step(pool, tasks, optimizer)
            values = {
                "meta-train/loss": finite(loss, step + 1),
                **probability_scalars(meta.space, meta.learner.probabilities()),
            }
            saved = None
            if (step + 1) % o.checkpoint_every == 0 or step + 1 == o.steps:
                saved = serialize_training(meta.encoder, step=step + 1, optimizer=optimizer.state_dict())
            yield Progress(step + 1, values, saved)
        rows = []
        for i in range(o.judged):
            task = episode(evaluation.tasks[VALIDATION], evaluation.shape, evaluation.settings.seed, i)
            rows.append(meta.evaluate(task))
            yield Progress(o.steps + i + 1, {f"meta-validation/{k}": rows[-1][k] for k in ("mixture", "hardened")})
        findings = {
            "architectures": self._select(meta, rows),
            "adapted": rows,
            "alphas": {name: alpha.tolist() for name, alpha in meta.learner.modules.alphas.items()},
        }
        return JobResult(findings, serialize_weights(meta.supernet))

    def _select(self, meta: MetaLearner, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One distinct architecture per trial: the most frequent ones of the tasks, then the initialisation's."""
        counted = Counter(Architecture(row["architecture"]) for row in rows)
        ranked = [architecture for architecture, _ in counted.most_common(self.trials)]
        probable = most_probable(meta.space, meta.learner.probabilities(), self.trials, self.seed)
        return [dict(a.values) for a in dict.fromkeys([*ranked, *probable])][: self.trials]
