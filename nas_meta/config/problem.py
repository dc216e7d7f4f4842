"""What a search searches and what it judges by: the prepared space, the tasks and the shape of their episodes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from nas_meta.config.compatibility import check_class_names, check_images, check_open_set, check_source
from nas_meta.config.model_pooling import pooling_difference
from nas_meta.config.recipe import AUTO
from nas_meta.config.relative_limits import number_limits
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.guard import plugin_call
from nas_meta.errors import ConfigError
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import JointSpace, LimitedSpace, TimedSpace
from nas_meta.tasks.episodes import (
    MANY_WAYS_QUERIES,
    MOST_WAYS,
    EpisodeShape,
    TrainShape,
    check_shape,
    default_ways,
    many_ways,
)
from nas_meta.tasks.examples import IMAGE

if TYPE_CHECKING:
    from nas_meta.tasks.pool import Tasks
    from nas_meta.tasks.source import TaskSource


class Problem(NamedTuple):
    """A search space with the tasks that its models are trained and judged on.

    Attributes:
        space: The search space, prepared.
        tasks: The meta-train, meta-validation and meta-test examples, tokenised.
        shape: Ways, shots and queries of the episodes that trials are judged on.
    """

    space: SearchSpace
    tasks: Tasks
    shape: EpisodeShape


def load_problem(resolved: ResolvedConfig) -> Problem:
    """Load everything that a trial needs besides its architecture.

    Args:
        resolved: The config.

    Returns:
        The space, prepared and ready to build models; the tasks, checked against the space; the shape of episodes.

    Raises:
        ConfigError: The space, the task source, the learner and the shape of episodes do not fit together.
        DataError: The task source cannot be read.
        PluginError: The space or the task source raised another exception.
    """
    space = make_space(resolved)
    tasks = load_tasks(resolved, space)
    shape = episode_shape(resolved, tasks=tasks)
    check_shape(tasks, shape, train_shape(resolved, tasks).of(shape))
    check_open_set(resolved, tasks, shape.ways)
    prepare_space(space, tasks, resolved.sections.seed)
    if limited := number_limits(space):
        tasks = dataclasses.replace(tasks, report=[*tasks.report, *limited])
    return Problem(space, tasks, shape)


def load_space(resolved: ResolvedConfig, tasks: Tasks) -> SearchSpace:
    """Make the space of a config and prepare it with tasks that are loaded already.

    Args:
        resolved: The config.
        tasks: Its tasks.

    Returns:
        The prepared space.

    Raises:
        ConfigError: The options of the space cannot be used.
        PluginError: The space raised another exception.
    """
    space = make_space(resolved)
    prepare_space(space, tasks, resolved.sections.seed)
    number_limits(space)
    return space


def prepare_space(space: SearchSpace, tasks: Tasks, seed: int) -> None:
    """Call :meth:`SearchSpace.prepare` within the error boundary of plugin calls.

    Args:
        space: The space.
        tasks: The tasks of the search; spaces use only those of meta-train.
        seed: The seed of the search.

    Raises:
        PluginError: The space raised an exception that is not a NasMetaError.
    """
    with plugin_call(space, "prepare"):
        space.prepare(tasks, seed)


def make_space(resolved: ResolvedConfig) -> SearchSpace:
    """Make the space of a config, not prepared yet.

    Args:
        resolved: The config.

    Returns:
        The space that ``space.name`` names, joined with the hyperparameters that are searched, within the limits of the
        objectives.

    Raises:
        ConfigError: The options of the space cannot be used.
        PluginError: The space raised another exception.
    """
    plugin, options = resolved.plugin("space"), resolved.options["space"]
    if resolved.tokenizer is not None and "tokenizer" in type(options).model_fields:
        options = options.model_copy(update={"tokenizer": resolved.tokenizer})
    with plugin_call(plugin, "__init__"):
        space = plugin(options)
    if resolved.tokenizer is not None:
        space.tokenizer = resolved.tokenizer
    if resolved.searched.choices:
        space = JointSpace(space, resolved.searched.choices)
    if resolved.sections.optimises_latency:
        space = TimedSpace(space)
    limits = resolved.sections.limits
    return LimitedSpace(space, limits, resolved.sections.evaluation.flops_tokens) if limits else space


def load_tasks(resolved: ResolvedConfig, space: SearchSpace) -> Tasks:
    """Read the tasks of a config and tokenise them for the models of a space.

    Args:
        resolved: The config.
        space: The space of the config; its tokenizer is used.

    Returns:
        The three splits, with the class names, prompts and synonyms that the config asks for.

    Raises:
        ConfigError: The space and the task source do not fit together.
        DataError: The task source cannot be read.
        PluginError: The task source raised another exception.
    """
    from nas_meta.models.inputs import check_modality
    from nas_meta.tasks import tokenization

    source = make_source(resolved)
    check_modality(space)
    check_source(space, source, resolved)
    tokenizer = None if space.modality == IMAGE else tokenization.load_tokenizer(space.tokenizer)
    tasks = tokenization.load_tasks(source, tokenizer, resolved.sections.tasks.max_tokens)
    tasks = with_wanted_names(resolved, space, tasks, tokenizer)
    tasks = with_learner_prompts(resolved, tasks, tokenizer)
    if difference := pooling_difference(resolved):
        tasks = dataclasses.replace(tasks, report=[*tasks.report, difference])
    check_images(space, tasks, resolved)
    if max(resolved.training("synonyms")) > 0:
        tasks = tokenization.with_synonyms(tasks, tokenization.load_tokenizer(space.tokenizer))
    return tasks


def make_source(resolved: ResolvedConfig) -> TaskSource:
    """Make the task source of a config.

    Args:
        resolved: The config.

    Returns:
        The source; nothing is read yet.

    Raises:
        PluginError: The source raised an exception that is not a NasMetaError.
    """
    plugin = resolved.plugin("tasks")
    with plugin_call(plugin, "__init__"):
        return plugin(resolved.options["tasks"])


def with_wanted_names(resolved: ResolvedConfig, space: SearchSpace, tasks: Tasks, tokenizer: Any) -> Tasks:
    """Add the names of classes as support examples if a config asks for them.

    Args:
        resolved: The config.
        space: The space of the config.
        tasks: The tasks.
        tokenizer: The tokenizer of the models; None where the examples are images.

    Returns:
        The tasks with names; the same tasks without ``tasks.class_names``.

    Raises:
        ConfigError: The examples have images, or a learner reads the names of classes anyway.
    """
    from nas_meta.tasks.tokenization import with_class_names

    if not resolved.sections.tasks.class_names:
        return tasks
    check_class_names(space, resolved)
    return with_class_names(tasks, tokenizer, resolved.sections.tasks.max_tokens)


def with_learner_prompts(resolved: ResolvedConfig, tasks: Tasks, tokenizer: Any) -> Tasks:
    """Add the prompts that the learner of a config writes, or every learner that the search may choose.

    Args:
        resolved: The config.
        tasks: The tasks.
        tokenizer: The tokenizer of the space; None where the examples are images.

    Returns:
        The tasks with prompts; the same tasks where no learner writes any.

    Raises:
        ConfigError: A learner reads texts, but the examples are images.
    """
    from nas_meta.tasks.prompts import with_prompts

    searched = resolved.searched
    fields = [f for f in (p.Options.model_fields.get("template") for p in searched.learners.values()) if f]
    if not fields:
        return tasks
    if tokenizer is None:
        raise ConfigError(f"learner '{resolved.sections.learner.name}' reads texts, but the examples here are images")
    choice = searched.choices.get("learner.template")
    templates = choice.values if choice else [searched.learner.get("template", fields[0].default)]
    return with_prompts(tasks, tokenizer, templates, resolved.sections.tasks.max_tokens)


def episode_shape(resolved: ResolvedConfig, shots: int | None = None, tasks: Tasks | None = None) -> EpisodeShape:
    """Return the shape of the episodes that trials are judged on.

    Args:
        resolved: The config.
        shots: Examples per class of the support set; by default the config's.
        tasks: The tasks, which decide the ways of a config without ``tasks.ways``; the config of a run has it.

    Returns:
        Ways, shots and queries.
    """
    section = resolved.sections.tasks
    ways = section.ways or (MOST_WAYS if tasks is None else default_ways(tasks))
    return EpisodeShape(ways, shots or section.shots, section.queries)


def train_shape(resolved: ResolvedConfig, tasks: Tasks | None = None) -> TrainShape:
    """Return how meta-training episodes differ from those that trials are judged on.

    Args:
        resolved: The config.
        tasks: The tasks, which decide what ``auto`` is; None, where nothing is trained, uses the values of evaluation.

    Returns:
        Ways, shots and queries of meta-training; the largest value of each that is searched.
    """
    section, choices = resolved.sections.tasks, resolved.searched.choices
    keys = ("train_ways", "train_shots", "train_queries")
    largest = {k: max(choices[f"tasks.{k}"].values) for k in keys if f"tasks.{k}" in choices}
    ways, shots, queries = (largest.get(k, getattr(section, k)) for k in keys)
    if ways == AUTO:
        ways = None if tasks is None else many_ways(tasks, episode_shape(resolved, tasks=tasks).ways)
    return TrainShape(ways, shots, min(MANY_WAYS_QUERIES, section.queries) if queries == AUTO else queries)


def decided_shape(resolved: ResolvedConfig, problem: Problem) -> dict[str, int]:
    """Return the keys of the section ``tasks`` that the data decide, with their values.

    Args:
        resolved: The config.
        problem: Its problem.

    Returns:
        ``ways``, and ``train_ways`` and ``train_queries`` where they are ``auto``.
    """
    train = train_shape(resolved, problem.tasks).of(problem.shape)
    keys = {"train_ways": train.ways, "train_queries": train.queries}
    section = resolved.sections.tasks
    return {"ways": problem.shape.ways, **{k: value for k, value in keys.items() if getattr(section, k) == AUTO}}
