"""The training loop of pre-training: AdamW with a learning-rate schedule, and checkpoints that resume exactly.

The rows of a step and their masked tokens are functions of the seed and the step number. Dropout depends on torch's
random generator, whose state a checkpoint holds. A resumed run therefore ends with the same weights as an uninterrupted
one, bit for bit. Budgets in minutes are the exception: they depend on the speed of the machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas_meta.errors import TrialError
from nas_meta.evaluation.pretraining.objectives.base import PretrainingLoss, without_lm_head
from nas_meta.evaluation.pretraining.objectives.clm import NextToken
from nas_meta.evaluation.pretraining.objectives.mlm import MaskedWords
from nas_meta.evaluation.pretraining.objectives.simcse import TwoViews
from nas_meta.evaluation.pretraining.objectives.smlmt import MaskedTasks
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.learners.training.options import rate_factor
from nas_meta.models.compute import Compute, allow_checkpointing, checkpointed, compile_model
from nas_meta.models.state import restore_training, serialize_training
from nas_meta.tasks.corpus.token_store import TokenStore

OBJECTIVES: Mapping[str, type[PretrainingLoss]] = {
    "mlm": MaskedWords,
    "clm": NextToken,
    "simcse": TwoViews,
    "smlmt": MaskedTasks,
}
LOOK_EVERY = 10  # steps between two statuses; reading the loss waits for the GPU
TIME_UNITS = 1_000_000  # a budget in minutes is scheduled as if it had that many steps


@dataclass(frozen=True)
class TrainingStatus:
    """Progress of a pre-training.

    Attributes:
        step: Number of steps done.
        loss: Mean loss since the previous status.
        tokens: Number of tokens seen, without padding.
        seconds: Training time in seconds, including the time before a checkpoint.
        over: Whether the budget is spent.
        state: Returns a checkpoint from which :func:`pretrain` resumes after this step. Call it before the next status
            is requested: it reads the live weights.
    """

    step: int
    loss: float
    tokens: int
    seconds: float
    over: bool
    state: Callable[[], np.ndarray] = field(repr=False, compare=False)

    def values(self, section: PretrainingSection) -> dict[str, float]:
        """Return the values to log, by name.

        Args:
            section: The options of the pre-training.

        Returns:
            The loss, the tokens per second and, for ``mlm`` and ``clm``, the perplexity.
        """
        values = {"pretrain/loss": self.loss, "pretrain/tokens_per_second": self.tokens / max(self.seconds, 1e-9)}
        if section.objective in ("mlm", "clm"):
            values["pretrain/perplexity"] = math.exp(min(self.loss, 700.0))
        return values


def make_loss(model: nn.Module, corpus: TokenStore, section: PretrainingSection, pooling: str) -> PretrainingLoss:
    """Create the loss that ``pretraining.objective`` names.

    Args:
        model: The model to pre-train.
        corpus: The tokenised corpus; the loss takes its vocabulary.
        section: The options of the pre-training.
        pooling: How token states become the embedding of a text, for ``simcse`` and ``smlmt``.

    Returns:
        The loss, whose parameters are the prediction head, on the model's device.

    Raises:
        ConfigError: The model or the tokenizer does not fit the objective.
    """
    return OBJECTIVES[section.objective](model, corpus.vocabulary, section, pooling)


def pretrain(
    model: nn.Module,
    objective: PretrainingLoss,
    corpus: TokenStore,
    section: PretrainingSection,
    seed: int,
    compute: Compute | None = None,
    start: np.ndarray | None = None,
) -> Iterator[TrainingStatus]:
    """Train a model and the head of its objective in place until the budget is spent.

    The result is a function of the initial weights, the corpus, the section and the seed, unless the budget is in
    minutes.

    Args:
        model: The model to pre-train, on its device.
        objective: The loss from :func:`make_loss`.
        corpus: The tokenised corpus.
        section: The options of the pre-training.
        seed: Seed of dropout, of the order of the corpus and of the masked tokens.
        compute: Precision, compilation and gradient checkpointing; by default fp32 with neither of the two.
        start: A checkpoint from :attr:`TrainingStatus.state` to resume from; None starts at step 0.

    Yields:
        The status after every ``LOOK_EVERY`` steps and after the last step.

    Raises:
        TrialError: The loss is not finite, the model has no trainable parameters, or it does not support the gradient
            checkpointing that ``compute`` asks for.
    """
    compute = compute or Compute(next(model.parameters()).device.type)
    modules = nn.ModuleDict({"model": model, "objective": objective})
    device = next(model.parameters()).device
    groups = _parameter_groups(modules, section.weight_decay)
    parameters = [p for group in groups for p in group["params"]]
    if not any(p.requires_grad for p in model.parameters()):
        raise TrialError("the model has no trainable parameters to pre-train; expected some that are not frozen")
    optimizer = torch.optim.AdamW(groups, lr=section.rate, fused=True)
    torch.manual_seed(seed)
    step = tokens = 0
    earlier_seconds = 0.0
    if start is not None:
        state = restore_training(start, modules)
        optimizer.load_state_dict(state["optimizer"])
        step, tokens, earlier_seconds = state["step"], state["tokens"], state["seconds"]
    rows = objective.rows(corpus, seed)
    body = without_lm_head(model)
    run_body = compile_model(body) if compute.compile else body
    layers = allow_checkpointing(body) if compute.gradient_checkpointing else ()
    started = time.perf_counter()
    losses: list[Tensor] = []
    modules.train()
    over = False
    with _without_cache(body):
        while not over:
            share = _share_spent(section, step, earlier_seconds + time.perf_counter() - started)
            for group in optimizer.param_groups:
                group["lr"] = section.rate * _rate_factor(section, step, share)
            inputs = objective.inputs(*rows.batch(step, section.batch), np.random.default_rng([seed, 1, step]))
            batch_tokens = int(inputs["attention_mask"].sum())
            with compute.autocast(), checkpointed(layers):
                loss = objective(
                    run_body, **{n: torch.from_numpy(a).to(device, non_blocking=True) for n, a in inputs.items()}
                )
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, section.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step, tokens = step + 1, tokens + batch_tokens
            losses.append(loss.detach())
            seconds = earlier_seconds + time.perf_counter() - started
            over = _share_spent(section, step, seconds) >= 1
            if step % LOOK_EVERY == 0 or over:
                mean = _check_finite(float(torch.stack(losses).mean()), step)
                losses.clear()

                def state(step: int = step, tokens: int = tokens, seconds: float = seconds) -> np.ndarray:
                    return serialize_training(
                        modules, optimizer=optimizer.state_dict(), step=step, tokens=tokens, seconds=seconds
                    )

                yield TrainingStatus(step, mean, tokens, seconds, over, state)


@contextmanager
def _without_cache(body: nn.Module) -> Iterator[None]:
    """Turn off a decoder's key-value cache, which only generation needs."""
    config = getattr(body, "config", None)
    before = getattr(config, "use_cache", None)
    if before is not None:
        config.use_cache = False
    try:
        yield
    finally:
        if before is not None:
            config.use_cache = before


def _share_spent(section: PretrainingSection, step: int, seconds: float) -> float:
    """Return the share of the budget that is spent; 1 or more when it is exhausted."""
    return step / section.total if section.total is not None else seconds / (60 * section.minutes)


def _rate_factor(section: PretrainingSection, step: int, share: float) -> float:
    """Return the learning rate of the next step as a share of its peak."""
    if section.total is not None:
        return rate_factor(section, step, section.total)
    return rate_factor(section, round(share * TIME_UNITS), TIME_UNITS)


def _parameter_groups(modules: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group the trainable parameters: matrices decay, biases and norms do not (Devlin et al. 2019, appendix A.2)."""
    trained = [p for p in modules.parameters() if p.requires_grad]
    matrices, rest = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _check_finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise TrialError(f"the pre-training loss is {loss} at step {step}: training diverged; lower pretraining.lr")
    return loss
