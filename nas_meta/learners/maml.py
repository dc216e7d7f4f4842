"""Model-agnostic meta-learning (Finn, Abbeel and Levine, 2017, "Model-Agnostic Meta-Learning for Fast Adaptation").

MAML learns an initialisation θ from which a few gradient steps on a support set lead to a good model. For each task,
θ' = θ - α∇L_support(θ), for one or more steps, and θ is trained to minimise Σ L_query(θ') (algorithm 1 of the paper).
The gradient is taken through the inner steps: for one step it is (I - α∇²L_support(θ)) ∇L_query(θ').
``first_order: true`` treats the Hessian as zero (FOMAML, section 5.2).

θ consists of the encoder's body and a linear head on embeddings that are scaled to the norm √``scale``. Nothing here
assumes text or classes: for real-valued targets the loss is the mean squared error (section 5.1 of the paper).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nas_meta.errors import TrialError
from nas_meta.learners.base import Classify, accuracy, embed_distinct, one_by_one, task_loss
from nas_meta.learners.inner_loop.descent import InnerLoop, Weights, descend
from nas_meta.learners.inner_loop.kernels import differentiable_kernels
from nas_meta.learners.inner_loop.moving_parameters import AdaptationOptions, AdaptingLearner
from nas_meta.learners.inner_loop.planning import plan
from nas_meta.learners.training.regularisation import Regularisation
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool

HEAD = ("learned.head.weight", "learned.head.bias")
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Names of the head's weight ``[N, D]`` and bias ``[N]``."""


@dataclass(frozen=True)
class Task:
    """An episode as the inner loop sees it.

    Attributes:
        support: Computes the features ``[N*K, D]`` of the support examples under given weights.
        query: Computes the features ``[N*Q, D]`` of the query examples under given weights.
        targets: ``[N*K]``, the targets of the support examples.
        ways: N, the number of classes.
    """

    support: Callable[[Weights], Tensor]
    query: Callable[[Weights], Tensor]
    targets: Tensor
    ways: int


class MAMLOptions(AdaptationOptions):
    """Options of MAML and of the learners derived from it."""

    inner_steps: int = Field(3, ge=0, description="gradient steps on a support set during meta-training")
    adapt_steps: int | None = Field(
        None, ge=0, description="gradient steps on a support set during evaluation; by default inner_steps"
    )
    inner_lr: float = Field(0.05, gt=0, description="learning rate α of the gradient steps on a support set")
    head_lr: float | None = Field(2.0, gt=0, description="learning rate α of the head; null uses inner_lr")
    first_order: bool = Field(False, description="ignore second derivatives, which saves time and memory (FOMAML)")
    scale: float | None = Field(
        10.0, gt=0, description="squared norm to which embeddings are scaled before the head; null does not scale them"
    )
    meta_batch: int = Field(2, ge=1, description="episodes per meta-training step; their gradients are averaged")
    memory_limit: float | None = Field(
        None, gt=0, description="memory for the second derivatives of one task, in GiB; by default the memory available"
    )


class MAML(AdaptingLearner):
    """MAML: learns an initialisation from which a few gradient steps on a support set suffice."""

    Options = MAMLOptions
    any_ways = False

    def equip(self, model: nn.Module) -> None:
        super().equip(model)
        if self.options.adapt == "head":
            return
        for name, module in model.named_modules():
            if isinstance(module, BATCH_NORMS):
                raise TrialError(
                    f"{type(self).__name__} cannot adapt {type(model).__name__}, because its {name} is a "
                    f"{type(module).__name__}, which mixes the examples of a batch and changes its statistics in "
                    "every inner step; expected LayerNorm or GroupNorm, learner.adapt: head, or another learner"
                )

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        return nn.ModuleDict({"head": nn.Linear(encoder.width, ways)})

    def initial_head(self, encoder: Encoder, features: Callable[[], Tensor], ways: int) -> Weights:
        """Return the head from which the inner loop starts; by default the meta-learned one.

        Args:
            encoder: The encoder.
            features: Computes the features ``[N*K, D]`` of the support examples; called only if they are needed.
            ways: N, the number of classes.

        Returns:
            The weight ``[N, D]`` and the bias ``[N]`` under the names in :data:`HEAD`.
        """
        return {HEAD[0]: encoder.learned["head"].weight, HEAD[1]: encoder.learned["head"].bias}

    def rates(self, encoder: Encoder, names: Sequence[str]) -> Mapping[str, Tensor | float]:
        """Return the inner learning rate α of each weight: a number, or a tensor of the weight's shape.

        Args:
            encoder: The encoder.
            names: The weights that the inner loop changes.
        """
        body, head = self.options.inner_lr, self.options.head_lr
        return {name: head if name in HEAD and head is not None else body for name in names}

    def gradients(
        self, encoder: Encoder, pool: Pool, first: Sequence[Episode], regularisation: Regularisation
    ) -> Callable[[Sequence[Episode]], float]:
        # Plans depend on the free memory and probe the model, whose dropout must not use up the training's randomness.
        with torch.random.fork_rng():
            planned = plan(self, encoder, pool, first, regularisation.options.acts_on_embeddings)
        if not planned.batched:
            return one_by_one(lambda task: self.meta_loss(encoder, pool, task, planned.checkpointed), regularisation)

        def add(tasks: Sequence[Episode]) -> float:
            loss = self.meta_losses(encoder, pool, tasks).mean()
            loss.backward()
            return loss.item()

        return add

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode, checkpointed: bool = False) -> Tensor:
        """Compute the loss of one episode; ``checkpointed`` recomputes the inner steps in the backward pass."""
        loop = InnerLoop(self.options.inner_steps, not self.options.first_order, checkpointed)
        outputs = self._adapt(encoder, self._task(encoder, pool, episode), loop)
        return task_loss(outputs, on_device(encoder, episode.labels))

    def meta_losses(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> Tensor:
        """Compute :meth:`meta_loss` of several episodes, with their inner loops in one batch (``torch.func.vmap``).

        Args:
            encoder: The encoder to train; its model must support ``vmap``.
            pool: The examples that the episodes' indices refer to.
            tasks: Episodes of one shape.

        Returns:
            ``[len(tasks)]``, the loss of each episode.
        """
        loop = InnerLoop(self.options.inner_steps, not self.options.first_order, functional=True)

        def loss_of_one(support: dict, targets: Tensor, query: dict, query_targets: Tensor) -> Tensor:
            features = [partial(self._features_of_inputs, encoder, inputs) for inputs in (support, query)]
            return task_loss(self._adapt(encoder, Task(*features, targets, len(tasks[0].support)), loop), query_targets)

        return vmap(loss_of_one, randomness="different")(
            encoder.stacked(pool, [task.support.ravel() for task in tasks]),
            on_device(encoder, np.stack([task.support_labels for task in tasks])),
            encoder.stacked(pool, [task.query.ravel() for task in tasks]),
            on_device(encoder, np.stack([task.labels for task in tasks])),
        )

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        with self.adapting(encoder, pool, episode) as classify:
            return classify(episode.query.ravel())

    @contextmanager
    def adapting(self, encoder: Encoder, pool: Pool, episode: Episode) -> Iterator[Classify]:
        with torch.enable_grad():
            found = self._adapted(encoder, self._task(encoder, pool, episode), self._evaluation_loop)
        weights = {name: weight.detach() for name, weight in found.items()}

        def classify(queries: np.ndarray) -> Tensor:
            with torch.no_grad():
                z = self._features_of(encoder, pool, queries, weights)
                return F.linear(z, weights[HEAD[0]], weights[HEAD[1]])

        yield classify

    def accuracies(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
        if self.adapted(encoder):
            return super().accuracies(encoder, pool, tasks)
        # The body is not adapted, so each distinct example needs to be embedded only once.
        z, position = embed_distinct(encoder, pool, tasks)
        z = self._scaled(z.clone())

        def score(task: Episode) -> float:
            parts = [z[position[part.ravel()]] for part in (task.support, task.query)]
            features = [lambda weights, part=part: part for part in parts]
            targets = on_device(encoder, task.support_labels)
            logits = self._adapt(encoder, Task(*features, targets, len(task.support)), self._evaluation_loop)
            return accuracy(logits, task)

        return np.array([score(task) for task in tasks])

    def probe(self, encoder: Encoder, pool: Pool, indices: np.ndarray, steps: int) -> Tensor:
        """Run a second-order inner loop for :func:`nas_meta.learners.inner_loop.planning.plan`, which measures it."""
        features = partial(self._features_of, encoder, pool, indices)
        targets = on_device(encoder, np.zeros(len(indices), dtype=np.int64))
        return self._adapt(encoder, Task(features, features, targets, 1), InnerLoop(steps, True)).square().mean()

    @property
    def _evaluation_loop(self) -> InnerLoop:
        """The inner loop during evaluation, where no derivative is taken through it."""
        steps = self.options.adapt_steps
        return InnerLoop(self.options.inner_steps if steps is None else steps, second_order=False)

    def _task(self, encoder: Encoder, pool: Pool, episode: Episode) -> Task:
        """Return an episode as the inner loop sees it."""
        parts = episode.support.ravel(), episode.query.ravel()
        features = [partial(self._features_of, encoder, pool, indices) for indices in parts]
        return Task(*features, on_device(encoder, episode.support_labels), len(episode.support))

    def _adapt(self, encoder: Encoder, task: Task, loop: InnerLoop) -> Tensor:
        """Run MAML's inner loop on a support set and compute the head's outputs for the query set.

        Args:
            encoder: The encoder.
            task: The episode.
            loop: Number of steps and how to differentiate through them.

        Returns:
            Logits ``[N*Q, N]``, or predictions for real-valued targets.
        """
        weights = self._adapted(encoder, task, loop)
        with self._kernels(loop)():
            return F.linear(task.query(weights), weights[HEAD[0]], weights[HEAD[1]])

    @staticmethod
    def _kernels(loop: InnerLoop) -> Callable[[], AbstractContextManager]:
        """Return the context in which the encoder is called: second derivatives need other kernels."""
        twice = loop.second_order or loop.functional
        return partial(differentiable_kernels, loop.functional) if twice else nullcontext

    def _adapted(self, encoder: Encoder, task: Task, loop: InnerLoop) -> Weights:
        """Run MAML's inner loop on a support set.

        Algorithm 1 of the paper, lines 5 and 6, for θ = (body, head) and k inner steps:

            θ_0 = θ,   θ_{j+1} = θ_j - α ∘ ∇L_support(θ_j),   outputs = head_k(body_k(query))

        Invariants:

        - The encoder's parameters are never written. θ_j is the dictionary ``weights``, with which the encoder is
          called; every θ_j is a differentiable function of the encoder's parameters.
        - The inner gradient is partial: body and head count as independent, even if the head was computed from the
          body's features (Prototype-MAML). Hence the loop starts from views of the body's parameters, on which the
          head does not depend. The meta-gradient still takes both paths to the parameters.
        - If the body is not adapted, its support features are constant in the inner loop and computed only once.
        - A checkpointed step differentiates only tensors that it finds in ``weights``, which therefore contains all
          trained parameters of the model in that case, not only the adapted ones.

        Example of the second invariant: the body multiplies by θ = 1, the support example x = 3 gives the head
        w = 2θx = 6, and the loss is wθx. The partial derivative with respect to θ is wx = 18. Without the view,
        autograd would return the total derivative, d(2θ²x²)/dθ = 4θx² = 36.

        Args:
            encoder: The encoder.
            task: The episode.
            loop: Number of steps and how to differentiate through them.

        Returns:
            θ_k by name.
        """
        body, kernels = self.adapted(encoder), self._kernels(loop)
        with kernels():
            fixed = None if body else task.support({})
            weights = {name: p.view_as(p) for name, p in body.items()}
            weights |= self.initial_head(encoder, lambda: task.support(body) if fixed is None else fixed, task.ways)
        adapted = list(weights)
        if loop.checkpointed:
            trained = {n: p for n, p in encoder.named_parameters() if n.startswith("model.") and p.requires_grad}
            weights = trained | weights

        def loss_of(current: Weights) -> Tensor:
            # The context is entered here because a checkpointed step calls this again during the backward pass.
            with kernels():
                z = task.support(current) if fixed is None else fixed
                return task_loss(F.linear(z, current[HEAD[0]], current[HEAD[1]]), task.targets)

        return descend(loss_of, weights, adapted, self.rates(encoder, adapted), loop)

    def _features_of(self, encoder: Encoder, pool: Pool, indices: np.ndarray, weights: Weights) -> Tensor:
        """Compute the features ``[len(indices), D]`` of examples under given weights."""
        return self._scaled(encoder.embed(pool, indices, weights=model_weights(weights) or None))

    def _features_of_inputs(self, encoder: Encoder, inputs: dict, weights: Weights) -> Tensor:
        """Compute the features of the model's inputs under given weights."""
        return self._scaled(functional_call(encoder, model_weights(weights), (), inputs))

    def _scaled(self, z: Tensor) -> Tensor:
        """Scale embeddings ``[M, D]`` to the norm √``scale``."""
        scale = self.options.scale
        return z if scale is None else scale**0.5 * F.normalize(z, dim=-1)


def model_weights(weights: Weights) -> Weights:
    """Return the weights of the model without the weights of the head."""
    return {name: value for name, value in weights.items() if name.startswith("model.")}


def on_device(encoder: Encoder, targets: np.ndarray) -> Tensor:
    """Return targets as a tensor on the encoder's device."""
    return torch.from_numpy(targets).to(next(encoder.parameters()).device)
