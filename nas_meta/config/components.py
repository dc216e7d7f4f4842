"""From a config to the parts that run its trials: the evaluation, the engine, the strategy."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nas_meta.config.problem import train_shape
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.config.sections import Config
from nas_meta.core import plugins
from nas_meta.core.guard import plugin_call
from nas_meta.errors import ConfigError
from nas_meta.evaluation.trial import Evaluation
from nas_meta.execution.engine import Engine
from nas_meta.space.search_space import SearchSpace
from nas_meta.strategy.prefilter import FILE, Prefilter, ProxyScores
from nas_meta.strategy.protocol import SearchContext, Strategy

if TYPE_CHECKING:
    from nas_meta.learners.base import LearnerOptions


def make_evaluation(resolved: ResolvedConfig, space: SearchSpace, tasks: Any, shape: Any, cpus: float):
    """The evaluation that every trial of a config goes through."""
    from nas_meta.evaluation.progress import EvaluationSettings
    from nas_meta.evaluation.trial import Evaluation, check_ways
    from nas_meta.models.compute import Compute

    config, section = resolved.sections, resolved.sections.tasks
    if resolved.options["learner"].training.patience and not config.evaluation.interim_every:
        raise ConfigError(
            "learner.training.patience counts interim validations, but evaluation.interim_every is 0; "
            "expected a number of steps there"
        )
    learner, train = resolved.plugin("learner")(resolved.options["learner"]), train_shape(resolved)
    if not resolved.searched.choices:
        check_ways(learner, train.of(shape), shape)
    if tasks is not None and space is not None and max(resolved.training("distill")) > 0:
        tasks = with_teacher(tasks, space, section.pooling)
    settings = config.evaluation.model_dump(exclude={"test_best", "keep", "check_models"})
    return Evaluation(
        space=space,
        learner=learner,
        tasks=tasks,
        shape=shape,
        train=train,
        limits=config.limits,
        ranked_by=config.optimised[0],
        searched=resolved.searched if resolved.searched.choices else None,
        settings=EvaluationSettings(**settings, seed=config.seed),
        pooling=section.pooling,
        compute=Compute(**config.compute.model_dump() | {"device": config.device}),
        threads=max(1, math.floor(cpus)),
    )


def cpus_per_trial(config: Config, inline: bool) -> float:
    """The CPUs that a trial has."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = available if inline else max(1, available // config.resources.workers)
    return config.resources.cpus_per_trial or shared


def make_engine(evaluation: Any, config: Config, inline: bool) -> Engine:
    """Where trials run: Ray, or this process."""
    if inline:
        from nas_meta.execution.inline_engine import InlineEngine

        return InlineEngine(evaluation)
    from nas_meta.execution.ray_engine import RayEngine
    from nas_meta.execution.ray_placement import Resources

    section, cpus = config.resources, cpus_per_trial(config, inline)
    resources = Resources(section.workers, cpus, section.gpus_per_trial, section.address, section.placement)
    return RayEngine(evaluation, replace(resources, metrics_port=config.watching.prometheus))


def most_steps(resolved: ResolvedConfig) -> int:
    """The most meta-training steps that a trial may take."""
    choices = resolved.searched.choices
    if "learner.steps" in choices:
        return max(cast("Sequence[int]", choices["learner.steps"].values))
    return cast("LearnerOptions", resolved.options["learner"]).steps


def make_strategy(
    resolved: ResolvedConfig, space: SearchSpace, trials: int | None = None, workers: int = 1
) -> Strategy:
    """The strategy of a config, which may know of so many trials (by default the budget's) and workers."""
    config = resolved.sections
    context = SearchContext(
        space=space,
        objectives=config.optimised,
        trials=trials or config.budget.trials,
        workers=workers,
        seed=config.seed,
        tokens=config.evaluation.flops_tokens,
    )
    plugin = resolved.plugin("strategy")
    with plugin_call(plugin, "__init__"):
        return plugin(context, resolved.options["strategy"])


def with_teacher(tasks: Any, space: SearchSpace, pooling: str):
    """The tasks with the full model's embeddings of meta-train, for distillation.

    Raises:
        ConfigError: the space has no full model.
    """
    import torch

    from nas_meta.models.encoder import Encoder

    model = space.reference()
    if model is None:
        raise ConfigError("learner.training.distill needs a full model to learn from, but the space has no reference()")
    pool = tasks["meta-train"]
    with torch.inference_mode():
        teacher = Encoder(model, pooling).eval().embed(pool, np.arange(len(pool)), rows=64).numpy()
    return replace(tasks, pools={**tasks.pools, "meta-train": replace(pool, teacher=teacher)})


def with_prefilter(
    strategy: Strategy, resolved: ResolvedConfig, evaluation: Callable[[], Evaluation], directory: Path
) -> Strategy:
    """The strategy behind the prefilter of the config, or the strategy itself where there is none.

    Raises:
        ConfigError: the strategy does not take proposals back, or has weights of its own for them.
    """
    section = resolved.sections.strategy
    if section.prefilter is None:
        return strategy
    if not strategy.withdraws or type(strategy).start_of is not Strategy.start_of:
        strategy.close()
        raise ConfigError(
            f"strategy.prefilter needs a strategy that takes proposals back, and '{section.name}' does not; "
            f"expected one of {', '.join(withdrawing_strategies())}, or no prefilter"
        )
    score = ProxyScores(section.prefilter.score, evaluation, resolved.sections.seed, directory / FILE)
    return Prefilter(strategy, score, section.prefilter.of)


def withdrawing_strategies() -> list[str]:
    """The installed strategies that take proposals back."""
    rows: list[Any] = plugins.installed("strategies")
    return [row.name for row in rows if row.broken is None and plugins.load("strategies", row.name).withdraws]
