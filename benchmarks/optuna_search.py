"""Optuna's samplers on a table without nas-meta, as their users run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nas_meta import Architecture, Objective, SearchSpace
from nas_meta.core.objectives import signed_values

MOST_INVALID = 2_000  # draws that break a constraint, after which a search ends


def make_sampler(name: str, seed: int):
    """Makes an optuna sampler with optuna's own defaults.

    Args:
        name: name of a row, such as ``optuna TPE``.
        seed: seed of the sampler.
    """
    from optuna import samplers

    if name == "optuna GP":
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    if name == "optuna NSGA-II (50)":
        return samplers.NSGAIISampler(population_size=50, seed=seed)
    if name == "optuna TPE, multivariate":
        return samplers.TPESampler(seed=seed, multivariate=True)
    return samplers.TPESampler(seed=seed)


def search_with_optuna(
    name: str, space: SearchSpace, look_up: Callable[[Architecture], Mapping[str, float]], budget: int, seed: int,
    objectives: Sequence[Objective],
) -> list[tuple[float, ...]]:  # fmt: skip
    """Runs an optuna sampler as its users do. Draws that break a constraint cost nothing.

    Such draws have the worst result so far, because TPE and the Gaussian process would repeat failed trials. NSGA-II
    makes new children instead, so they are failed trials there. The Gaussian process does not model conditional
    choices: it draws all choices, and those that do not apply are ignored.

    Args:
        name: name of a row.
        space: search space of the table.
        look_up: function that returns the metrics of an architecture.
        budget: number of evaluations.
        seed: seed of the sampler.
        objectives: objectives of the search.

    Returns:
        Objective values of every evaluation in order, signed so that more is better.
    """
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    study = optuna.create_study(sampler=make_sampler(name, seed), directions=["maximize"] * len(objectives))
    found: list[tuple[float, ...]] = []
    gaussian, genetic = name == "optuna GP", name.startswith("optuna NSGA-II")
    for _ in range(budget + MOST_INVALID):
        trial, values = study.ask(), {}
        for choice, options in space.table.items():
            if gaussian or options.applies(values):
                values[choice] = trial.suggest_categorical(choice, list(options.values))
        architecture = space.canonical(values)
        if space.problem(architecture) is not None:
            if found and not genetic:
                study.tell(trial, np.min(found, axis=0).tolist())
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        found.append(signed_values(look_up(architecture), objectives))
        study.tell(trial, list(found[-1]))
        if len(found) == budget:
            break
    return found
