"""Before the first trial: whether the models of a search space can be trained and exported, for all of its choices.

A search must not end with a winner that cannot be exported. The check tries, instead of consulting a list of model
families: the smallest architecture, a random one, and a few more until every value of every choice has been tried
somewhere (:func:`covering`). If one fails, its values are tried one at a time in an architecture that works
(:func:`culprits`), so that the error names the choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas_meta.core.guard import plugin_call
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.evaluation.model_check import model_problem
from nas_meta.evaluation.pretraining.loop import make_loss
from nas_meta.evaluation.progress import JobResult, Progress
from nas_meta.models.checks import check_model
from nas_meta.models.token_checks import check_length, check_tokens
from nas_meta.space.architecture import Architecture, Value
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import space_name
from nas_meta.tasks.examples import TEXT

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation

SAMPLES = 32  # random architectures among which those to try are chosen
MOST = 4  # architectures tried; fewer if models are large
PARAMETERS = 6e7  # of all models together after which no further architecture is tried beyond the first two
REPAIRS = 8  # architectures tried to find one that works
ISOLATIONS = 16  # architectures tried to name the choices at fault

Item = tuple[str, Value, tuple[tuple[str, Value], ...]]
"""A value of a choice under the values of the choices that it depends on; numbers in names are left out."""


def preflight(
    evaluation: Evaluation,
    checkpoint: np.ndarray | None,
    *,
    key: str | None,
    lengths: Mapping[str, int],
    models: bool,
    forms: Sequence[str] = (),
) -> Generator[Progress, None, JobResult]:
    """Run the checks on a worker, as a job of :meth:`Evaluation.run <nas_meta.evaluation.trial.Evaluation.run>`.

    Models are built here and not on the driver, so that one that ends its process does not end the search.

    Args:
        evaluation: The evaluation of the trials, with the prepared space.
        checkpoint: Unused; the checks are short.
        key: The pretrained model, see :func:`check_models`.
        lengths: Lengths of further texts, see :func:`check_models`.
        models: Whether to check models, besides pre-training.
        forms: Forms other than torch in which the search measures its trials.

    Returns:
        The findings ``error``, the name of the error's class, and ``message``; empty findings if nothing is wrong.
    """
    yield from ()  # a job is a generator; this one has no steps
    try:
        if models:
            check_models(evaluation, key, lengths)
        if evaluation.pretraining is not None:
            check_pretraining(evaluation)
        if forms:
            from nas_meta.evaluation.deployed import check_forms

            space, seed = evaluation.space, evaluation.settings.seed
            check_forms(evaluation, covering(space, seed, evaluation.settings.flops_tokens)[0], forms)
    except NasMetaError as error:
        return JobResult({"error": type(error).__name__, "message": str(error)})
    return JobResult({})


def check_models(
    evaluation: Evaluation, key: str | None = None, lengths: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Try some architectures before the first trial.

    Args:
        evaluation: The evaluation of the trials, with the prepared space.
        key: The pretrained model that the space cuts its models from, such as ``space.model 'models/bert'``; None if
            there is none. Only then are choices refused that cannot be trained; see :func:`model_problem`.
        lengths: Lengths of further texts that are computed, in tokens, by config key.

    Raises:
        ConfigError: A choice, or the whole space, does not give models that can be trained and exported.
    """
    space, seed = evaluation.space, evaluation.settings.seed

    def problem(architecture: Architecture) -> str | None:
        return model_problem(evaluation, architecture, seed, key is not None)

    architectures = covering(space, seed, evaluation.settings.flops_tokens)
    if space.modality == TEXT:
        check_texts(evaluation, architectures[0], key or f"the model of {space_name(space)}", lengths)
    working: list[Architecture] = []
    failing: list[tuple[Architecture, str]] = []
    for architecture in architectures:
        reason = problem(architecture)
        if reason is None:
            working.append(architecture)
        else:
            failing.append((architecture, reason))
    if not failing:
        return
    if not working:
        working = repaired(space, failing[0][0], problem)
    subject = f"the search space {space_name(space)}" + (f" does not fit {key}" if key else "")
    found = culprits(space, working, [a for a, _ in failing], problem) if working else []
    if found:
        raise ConfigError(f"{subject}: {'; '.join(found)}; leave out such values, or use another model")
    architecture, reason = failing[0]
    which = f"the architecture {architecture}" if working else "no architecture works; the smallest"
    raise ConfigError(f"{subject}: {which} {reason}; expected models that can be trained and exported")


def check_pretraining(evaluation: Evaluation) -> None:
    """Check on one random model that candidates can be pre-trained.

    Args:
        evaluation: The evaluation of the trials, with a pre-training stage.

    Raises:
        ConfigError: The models cannot learn by the objective, or inherit nothing from ``pretraining.inherit``.
        PluginError: The space cannot build the model.
    """
    space, stage = evaluation.space, evaluation.pretraining
    assert stage is not None, "the evaluation has no pre-training"
    with plugin_call(space, "build"):
        model = space.build(space.sample(np.random.default_rng(evaluation.settings.seed)))
    make_loss(model, stage.corpus, stage.section, stage.pooling)
    if stage.inherited(model, None) == 0:
        raise ConfigError(
            f"pretraining.inherit: no weight of '{stage.section.inherit}' has the name and dimensions of a parameter "
            f"of {type(model).__name__}; expected a model of the same family, or inherit: true"
        )


def check_texts(evaluation: Evaluation, architecture: Architecture, subject: str, lengths: Mapping[str, int]) -> None:
    """Check that a model has embeddings for the tokens of the tasks, and positions for the longest text.

    Args:
        evaluation: The evaluation of the trials.
        architecture: An architecture of its space; if it cannot be built, its trial reports that.
        subject: What the error message calls the model.
        lengths: Lengths of further texts, by config key.

    Raises:
        ConfigError: The texts do not fit the model.
    """
    space = evaluation.space
    try:
        with torch.random.fork_rng():
            model = space.build(architecture)
            check_model(model, space)
    except (Exception, SystemExit):
        return
    check_tokens(model, evaluation.tasks, subject)
    for name, length in lengths.items():
        check_length(model, torch.ones(1, length, dtype=torch.long), subject, name)


def covering(space: SearchSpace, seed: int, tokens: int) -> list[Architecture]:
    """Return the architectures to try.

    Greedy set cover: after the smallest architecture and a random one, each further one has the most values that none
    before it has. Layers are not told apart, so one architecture with many layers covers many values.

    Args:
        space: The prepared space.
        seed: Seed of the random architectures.
        tokens: Tokens of the text for which the space counts FLOPs.

    Returns:
        Distinct architectures, the smallest first.
    """
    rng = np.random.default_rng([seed, 1])
    samples = list(dict.fromkeys(space.sample(rng) for _ in range(SAMPLES)))
    chosen = list(dict.fromkeys([smallest(space, samples, tokens), samples[0]]))
    size = sum(_parameters(space, a, tokens) for a in chosen)
    covered = {item for a in chosen for item in items(space, a)}
    while len(chosen) < MOST:
        best = max(samples, key=lambda a: len(items(space, a) - covered))
        size += _parameters(space, best, tokens)
        if size > PARAMETERS or not items(space, best) - covered:
            break
        covered |= items(space, best)
        chosen.append(best)
    return chosen


def smallest(space: SearchSpace, samples: Sequence[Architecture], tokens: int) -> Architecture:
    """Return the smallest architecture that one pass over all choices finds.

    Starts with the smallest sample and takes each value that makes it smaller; without counts, the first sample.

    Args:
        space: The prepared space.
        samples: Random architectures.
        tokens: Tokens of the text for which the space counts FLOPs.
    """
    best = min(samples, key=lambda a: _parameters(space, a, tokens))
    size = _parameters(space, best, tokens)
    if not size:
        return samples[0]
    for name, choice in space.table.items():
        for value in choice.values:
            changed = variant(space, best, best, name, value) if name in best.values else None
            if changed is not None and 0 < _parameters(space, changed, tokens) < size:
                best, size = changed, _parameters(space, changed, tokens)
    return best


def repaired(
    space: SearchSpace, architecture: Architecture, problem: Callable[[Architecture], str | None]
) -> list[Architecture]:
    """Find an architecture that works, by taking one value after the other out of one that does not.

    A value is replaced in all layers at once: if layers fail because of ``part: ia3``, no layer has it afterwards.

    Args:
        space: The space.
        architecture: An architecture that does not work.
        problem: Returns why an architecture does not work, or None.

    Returns:
        A list of the architecture; empty if none was found.
    """
    removed: set[tuple[str, Value]] = set()
    general = {name: _general(name) for name in space.table}
    tried = {architecture}
    for pair in dict.fromkeys((general[name], value) for name, value in architecture.values.items()):
        same = [c for n, c in space.table.items() if general[n] == pair[0]]
        for replacement in dict.fromkeys(v for c in same for v in c.values if (pair[0], v) not in removed | {pair}):
            values = {n: c.values[0] for n, c in space.table.items()} | dict(architecture.values)
            for name, choice in space.table.items():
                if (general[name], values[name]) == pair and replacement in choice.values:
                    values[name] = replacement
            changed = space.canonical(values)
            if changed in tried or space.problem_of(changed) is not None:
                continue
            tried.add(changed)
            if problem(changed) is None:
                return [changed]
            if len(tried) > REPAIRS:
                return []
            if pair not in removed:
                removed.add(pair)
                architecture = changed
    return []


def culprits(
    space: SearchSpace,
    working: Sequence[Architecture],
    failing: Sequence[Architecture],
    problem: Callable[[Architecture], str | None],
) -> list[str]:
    """Find the values at fault by changing one value at a time in an architecture that works.

    Args:
        space: The space.
        working: Architectures that work; the first one is changed.
        failing: Architectures that do not.
        problem: Returns why an architecture does not work, or None.

    Returns:
        A clause for each value at fault, such as ``layer0.part='adapter' cannot be exported (...)``; empty if only
        combinations fail.
    """
    base, fine = working[0], {item for a in working for item in items(space, a)}
    found: list[str] = []
    blamed: set[tuple[str, Value]] = set()
    tried = 0
    for architecture in failing:
        for name, value in architecture.values.items():
            item = _item(space, architecture, name)
            if item in fine or tried == ISOLATIONS or blamed & {item[:2], *item[2]}:
                continue
            fine.add(item)
            changed = variant(space, base, architecture, name, value)
            if changed is None or changed == base:
                continue
            tried += 1
            reason = problem(changed)
            if reason is not None:
                blamed.add(item[:2])
                under = [p for p in space.table[name].when if not isinstance(architecture[p], bool)]
                values = " and ".join(f"{p}={architecture[p]!r}" for p in (*under, name))
                found.append(f"{values} {reason}")
    return found


def variant(
    space: SearchSpace, base: Architecture, other: Architecture, name: str, value: Value
) -> Architecture | None:
    """Return an architecture with one value changed, along with the choices that this value depends on.

    Args:
        space: The space.
        base: The architecture to change.
        other: Gives the values of the choices that ``name`` depends on, and of those that become active.
        name: The choice.
        value: Its new value.

    Returns:
        The architecture; None if the constraints of the space exclude it.
    """
    values = {n: c.values[0] for n, c in space.table.items()} | dict(other.values) | dict(base.values) | {name: value}
    parents = list(space.table[name].when)
    while parents:
        parent = parents.pop()
        values[parent] = other[parent]
        parents.extend(space.table[parent].when)
    try:
        architecture = space.canonical(values)
    except ConfigError:
        return None
    return architecture if space.problem_of(architecture) is None else None


def items(space: SearchSpace, architecture: Architecture) -> set[Item]:
    """Return what an architecture covers: its values, those of equal choices in different layers counted once.

    Args:
        space: The space.
        architecture: One of its architectures.
    """
    return {_item(space, architecture, name) for name in architecture.values}


def _item(space: SearchSpace, architecture: Architecture, name: str) -> Item:
    parents = space.table[name].when
    under = tuple((_general(p), architecture[p]) for p in parents if p in architecture.values)
    return _general(name), architecture[name], under


def _general(name: str) -> str:
    """The name of a choice without its numbers: ``layer3.part`` and ``layer11.part`` are one."""
    return re.sub(r"\d+", "*", name)


def _parameters(space: SearchSpace, architecture: Architecture, tokens: int) -> float:
    """The number of parameters that the space counts; 0 if it counts none."""
    with plugin_call(space, "counts"):
        return space.counts(architecture, tokens).get("params", 0)
