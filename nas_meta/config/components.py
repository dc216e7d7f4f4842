"""Builds the parts of a search from its config: the evaluation, the engine and the strategy.

Lower layers never see a config: the functions here read it and pass explicit arguments on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nas_meta.config.environment import concealed, expanded
from nas_meta.config.problem import train_shape
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.config.sections import Config
from nas_meta.core import plugins
from nas_meta.core.guard import plugin_call
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.evaluation.trial import Evaluation
from nas_meta.execution.engine import Engine
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import LimitedSpace
from nas_meta.strategy.prefilter import FILE, Prefilter, ProxyScores
from nas_meta.strategy.protocol import SearchContext, Strategy

if TYPE_CHECKING:
    from nas_meta.learners.base import LearnerOptions
    from nas_meta.models.compute import Compute


def make_evaluation(
    resolved: ResolvedConfig, space: SearchSpace, tasks: Any, shape: Any, cpus: float, trains: bool = True
) -> Evaluation:
    """Build the evaluation that every trial of a config goes through.

    Args:
        resolved: The config.
        space: The prepared search space.
        tasks: The tokenised tasks.
        shape: Shape of the episodes of meta-validation and meta-test.
        cpus: CPUs per trial; rounded down, they are its threads.
        trains: Whether models will be meta-trained, which needs the embeddings of a teacher if there is one.

    Returns:
        The :class:`~nas_meta.evaluation.trial.Evaluation`.

    Raises:
        ConfigError: Options of the learner contradict each other or need something that the space lacks.
    """
    from nas_meta.config.teacher import with_teacher
    from nas_meta.evaluation.full_way import check_learner
    from nas_meta.evaluation.progress import EvaluationSettings
    from nas_meta.evaluation.protocols import DRAWS, FULL_WAY, check_ways

    config, section = resolved.sections, resolved.sections.tasks
    if resolved.options["learner"].training.patience and not config.evaluation.interim_every:
        raise ConfigError(
            "learner.training.patience counts interim validations, but evaluation.interim_every is 0; "
            "expected a positive number of steps"
        )
    learner, train = resolved.plugin("learner")(resolved.options["learner"]), train_shape(resolved, tasks)
    if not resolved.searched.choices:
        check_ways(learner, train.of(shape), shape)
        check_learner(learner, config.evaluation.protocol)
    settings = config.evaluation.model_dump(exclude={"test_best", "keep", "check_models", "compare", "open_set"})
    if config.evaluation.protocol == FULL_WAY:
        settings |= {key: min(settings[key], DRAWS) for key in ("episodes", "interim_episodes", "test_episodes")}
    evaluation = Evaluation(
        space=space,
        learner=learner,
        tasks=tasks,
        shape=shape,
        train=train,
        limits=space.limits if isinstance(space, LimitedSpace) else config.limits,
        ranked_by=config.optimised[0],
        searched=resolved.searched if resolved.searched.choices else None,
        settings=EvaluationSettings(**settings, seed=config.seed),
        pooling=section.pooling,
        compute=make_compute(config),
        threads=max(1, math.floor(cpus)),
        measured=config.asked_metrics,
    )
    if not trains or tasks is None or space is None:
        return evaluation
    return replace(evaluation, tasks=with_teacher(evaluation, resolved))


def make_compute(config: Config) -> Compute:
    """Return how the models of a config compute, with everything decided that it leaves open.

    Args:
        config: The sections of the config.
    """
    from nas_meta.models.compute import Compute

    return Compute(**config.compute.model_dump() | {"device": config.device, "precision": config.precision})


def cpus_per_trial(config: Config, inline: bool) -> float:
    """Return the number of CPUs per trial.

    Args:
        config: The sections of the config.
        inline: Whether trials run in this process, one at a time.

    Returns:
        ``resources.cpus_per_trial``; by default all available CPUs if ``inline``, else an equal share per worker.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = available if inline else max(1, available // config.resources.workers)
    return config.resources.cpus_per_trial or share


def make_engine(evaluation: Any, config: Config, inline: bool) -> Engine:
    """Start the engine that runs trials.

    Args:
        evaluation: The object whose methods the engine calls; it is sent to every worker once.
        config: The sections of the config.
        inline: Whether to run trials in this process instead of on Ray workers.

    Returns:
        The running engine; the caller closes it.

    Raises:
        ConfigError: The device or the cluster of the config is not available.
    """
    if inline:
        from nas_meta.execution.inline_engine import InlineEngine

        return InlineEngine(evaluation)
    from nas_meta.execution.ray_engine import RayEngine
    from nas_meta.execution.ray_placement import Resources

    section, cpus = config.resources, cpus_per_trial(config, inline)
    address = None if section.address is None else expanded(section.address, "resources.address")
    resources = Resources(section.workers, cpus, section.gpus_per_trial or 0, address, section.placement)
    resources = replace(resources, metrics_port=config.watching.prometheus, niceness=section.niceness)
    try:
        return RayEngine(evaluation, resources)
    except NasMetaError as error:
        if section.address is None:
            raise
        raise type(error)(concealed(str(error), section.address)) from None


def most_steps(resolved: ResolvedConfig) -> int:
    """Return the largest number of meta-training steps that a trial can take.

    Args:
        resolved: The config.

    Returns:
        ``learner.steps``, or the largest of its values if it is a choice.
    """
    choices = resolved.searched.choices
    if "learner.steps" in choices:
        return max(cast("Sequence[int]", choices["learner.steps"].values))
    return cast("LearnerOptions", resolved.options["learner"]).steps


def make_strategy(
    resolved: ResolvedConfig, space: SearchSpace, trials: int | None = None, workers: int = 1
) -> Strategy:
    """Build the strategy of a config.

    Args:
        resolved: The config.
        space: The prepared search space.
        trials: Number of trials that the strategy plans for; by default ``budget.trials``. A resumed search passes the
            number that it began with.
        workers: Number of trials that run at the same time.

    Returns:
        The strategy, before its first proposal.

    Raises:
        ConfigError: The strategy cannot search this space.
        PluginError: The strategy raised another exception.
    """
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


def with_prefilter(
    strategy: Strategy, resolved: ResolvedConfig, evaluation: Callable[[], Evaluation], directory: Path
) -> Strategy:
    """Wrap a strategy in the prefilter of its config.

    Args:
        strategy: The strategy; it is closed if the prefilter is rejected.
        resolved: The config.
        evaluation: Builds the evaluation whose models are scored; called for the first score only.
        directory: Run directory, where scores are cached.

    Returns:
        The wrapped strategy; the strategy itself if ``strategy.prefilter`` is not set.

    Raises:
        ConfigError: The strategy cannot withdraw proposals, or provides initial weights for its trials.
    """
    section = resolved.sections.strategy
    if section.prefilter is None:
        return strategy
    if not strategy.withdraws or type(strategy).start_of is not Strategy.start_of:
        strategy.close()
        raise ConfigError(
            f"strategy.prefilter needs a strategy that can withdraw proposals, but '{section.name}' cannot; "
            f"expected one of {', '.join(withdrawing_strategies())}, or no prefilter"
        )
    score = ProxyScores(section.prefilter.score, evaluation, resolved.sections.seed, directory / FILE)
    return Prefilter(strategy, score, section.prefilter.of)


def withdrawing_strategies() -> list[str]:
    """Return the names of the installed strategies that can withdraw proposals."""
    rows: list[Any] = plugins.installed("strategies")
    return [row.name for row in rows if row.broken is None and plugins.load("strategies", row.name).withdraws]
