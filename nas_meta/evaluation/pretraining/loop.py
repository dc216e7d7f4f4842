"""The loop of pre-training: batches, AdamW, a schedule, and all that another process needs to go on exactly."""

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
from nas_meta.evaluation.pretraining.objectives.base import PretrainingLoss, body_of
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
LOOK_EVERY = 10  # steps between two looks at the loss, for which a GPU must be waited for
FINE = 1_000_000  # parts of a budget of time


@dataclass(frozen=True)
class TrainingStatus:
    """What pre-training has come to after some steps.

    Attributes:
        step: how many steps are done.
        loss: their mean since the look before.
        tokens: how many were seen, padding aside.
        seconds: spent in all, those before a checkpoint among them.
        over: whether the budget is spent.
        state: gives bytes with which :func:`pretrain` goes on after this step.
    """

    step: int
    loss: float
    tokens: int
    seconds: float
    over: bool
    state: Callable[[], np.ndarray] = field(repr=False, compare=False)

    def values(self, section: PretrainingSection) -> dict[str, float]:
        """What is watched: the loss, of language models the perplexity, and tokens a second."""
        told = {"pretrain/loss": self.loss, "pretrain/tokens_per_second": self.tokens / max(self.seconds, 1e-9)}
        if section.objective in ("mlm", "clm"):
            told["pretrain/perplexity"] = math.exp(min(self.loss, 700.0))
        return told


def make_loss(model: nn.Module, corpus: TokenStore, section: PretrainingSection, pooling: str) -> PretrainingLoss:
    """The objective of a section for a model.

    Raises:
        ConfigError: the model cannot learn so, or not with this corpus.
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
    """Trains a model in place, and the objective's head, until the budget is spent.

    A function of the model's weights, the corpus, the section and the seed, unless the budget is one of time.

    Args:
        seed: of dropout, of the order of the corpus and of what is masked.
        start: the state of the look after which to go on.

    Raises:
        TrialError: the loss is not finite, or no parameter may be trained.
    """
    compute = compute or Compute(next(model.parameters()).device.type)
    both = nn.ModuleDict({"model": model, "objective": objective})
    device = next(model.parameters()).device
    groups = _groups(both, section.weight_decay)
    parameters = [p for group in groups for p in group["params"]]
    if not any(p.requires_grad for p in model.parameters()):
        raise TrialError("the model has no parameters to pre-train; expected some that are not frozen")
    optimizer = torch.optim.AdamW(groups, lr=section.rate, fused=True)
    torch.manual_seed(seed)
    step = tokens = 0
    before = 0.0
    if start is not None:
        state = restore_training(start, both)
        optimizer.load_state_dict(state["optimizer"])
        step, tokens, before = state["step"], state["tokens"], state["seconds"]
    rows = objective.rows(corpus, seed)
    body = body_of(model)
    call = compile_model(body) if compute.compile else body
    layers = allow_checkpointing(body) if compute.gradient_checkpointing else ()
    begun = time.perf_counter()
    losses: list[Tensor] = []
    both.train()
    over = False
    with _uncached(body):
        while not over:
            share = _spent(section, step, before + time.perf_counter() - begun)
            for group in optimizer.param_groups:
                group["lr"] = section.rate * _factor(section, step, share)
            inputs = objective.inputs(*rows.batch(step, section.batch), np.random.default_rng([seed, 1, step]))
            seen = int(inputs["attention_mask"].sum())
            with compute.autocast(), checkpointed(layers):
                loss = objective(
                    call, **{n: torch.from_numpy(a).to(device, non_blocking=True) for n, a in inputs.items()}
                )
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, section.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step, tokens = step + 1, tokens + seen
            losses.append(loss.detach())
            seconds = before + time.perf_counter() - begun
            over = _spent(section, step, seconds) >= 1
            if step % LOOK_EVERY == 0 or over:
                mean = _finite(float(torch.stack(losses).mean()), step)
                losses.clear()

                def state(step: int = step, tokens: int = tokens, seconds: float = seconds) -> np.ndarray:
                    return serialize_training(
                        both, optimizer=optimizer.state_dict(), step=step, tokens=tokens, seconds=seconds
                    )

                yield TrainingStatus(step, mean, tokens, seconds, over, state)


@contextmanager
def _uncached(body: nn.Module) -> Iterator[None]:
    """Within, a decoder keeps no keys and values for words to come: there will be none."""
    config = getattr(body, "config", None)
    before = getattr(config, "use_cache", None)
    if before is not None:
        config.use_cache = False
    try:
        yield
    finally:
        if before is not None:
            config.use_cache = before


def _spent(section: PretrainingSection, step: int, seconds: float) -> float:
    """The share of the budget that is spent."""
    return step / section.total if section.total is not None else seconds / (60 * section.minutes)


def _factor(section: PretrainingSection, step: int, share: float) -> float:
    if section.total is not None:
        return rate_factor(section, step, section.total)
    return rate_factor(section, round(share * FINE), FINE)


def _groups(both: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What is trained: matrices decay, biases and norms do not (Devlin et al. 2019, appendix A.2)."""
    trained = [p for p in both.parameters() if p.requires_grad]
    matrices, rest = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise TrialError(f"the loss of pre-training is {loss} at step {step}: it diverged; lower pretraining.lr")
    return loss
