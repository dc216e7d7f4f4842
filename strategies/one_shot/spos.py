"""Single-path one-shot: uniform paths train the weights (NNI's RandomOneShot), evolution then finds the best one."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
from pydantic import Field

from nas_meta import Architecture, ChoiceSupernet, SearchSpace
from strategies.one_shot.base import Method, OneShot, OneShotOptions, Training, ranked
from strategies.one_shot.nni_supermodules import SuperModules, paths
from strategies.shared.mutation import mutate, unseen_architecture


class SPOSOptions(OneShotOptions):
    """Options of SPOS."""

    population: int = Field(20, ge=2, description="architectures of a generation")
    generations: int = Field(5, ge=1, description="of the evolution after the training; the first is random")
    parents: int = Field(5, ge=1, description="the best so far, of which the next generation are children")
    search_episodes: int = Field(40, ge=2, description="episodes of held-out classes that judge an architecture")


class SinglePath(Method):
    """Every step trains one architecture, drawn uniformly; the best is bred with the weights that it inherits."""

    def __init__(self, training: Training):
        super().__init__(training)
        self.rng = np.random.default_rng(training.seed)

    @staticmethod
    def mutate(supernet: ChoiceSupernet) -> SuperModules:
        return paths(supernet)

    @staticmethod
    def extra_steps(options: SPOSOptions) -> int:
        return options.generations

    def state(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]

    def before_weights(self, step: int) -> None:
        self.training.modules.follow(self.training.space.sample(self.rng))

    def architecture_step(self, step: int) -> Mapping[str, float]:
        return {}

    def derive(self, count: int) -> Generator[Mapping[str, float], None, list[Architecture]]:
        training, o = self.training, self.options
        scores: dict[Architecture, float] = {}
        for _ in range(o.generations):
            best = sorted(scores, key=scores.get, reverse=True)[: o.parents]
            for architecture in self._generation(best, {a.id for a in scores}):
                scores[architecture] = training.inherited(architecture, o.search_episodes)
            yield {"supernet/best_inherited_accuracy": max(scores.values())}
        return ranked(training, scores, count)

    def _generation(self, parents: list[Architecture], seen: set[str]) -> list[Architecture]:
        """Half children of one parent, half of two; at random what cannot be bred or has no parents. None was seen."""
        space, rng, size = self.training.space, self.rng, self.options.population
        born: dict[str, Architecture] = {}
        for i in range(10 * size * bool(parents)):
            one, other = (parents[int(rng.integers(len(parents)))] for _ in range(2))
            child = crossed(space, one, other, rng) if i % 2 else mutate(space, one, rng)
            if child is not None and child.id not in seen:
                born[child.id] = child
            if len(born) == size:
                break
        while len(born) < size and (fresh := unseen_architecture(space, {*seen, *born}, rng)):
            born[fresh.id] = fresh
        return list(born.values())


def crossed(
    space: SearchSpace, one: Architecture, other: Architecture, rng: np.random.Generator
) -> Architecture | None:
    """A child that has every choice from one of two parents, at random; None where that is not in the space.

    A choice that neither has is drawn.
    """
    values = {}
    for name, choice in space.table.items():
        known = [parent[name] for parent in (one, other) if name in parent.values] or choice.values
        values[name] = known[int(rng.integers(len(known)))]
    child = space.canonical(values)
    return child if space.problem(child) is None else None


class SPOS(OneShot):
    """Guo et al. 2020: a supernet trained along uniform single paths, then evolution over it, without training (NNI).

    NNI leaves the second half to its user; here it is the paper's algorithm 1.
    """

    Options = SPOSOptions
    name = "spos"
    method = SinglePath
