"""Single-path one-shot (SPOS): uniform random paths train the weights, then evolution searches among the paths."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
from pydantic import Field

from nas_meta import Architecture, ChoiceSupernet, SearchSpace
from strategies.one_shot.base import Method, OneShot, OneShotOptions, Training, top_architectures
from strategies.one_shot.nni_supermodules import SuperModules, paths
from strategies.shared.unseen import unseen_architecture


class SPOSOptions(OneShotOptions):
    """Options of ``spos``."""

    population: int = Field(20, ge=2, description="architectures per generation of the evolution")
    generations: int = Field(
        5, ge=1, description="generations of the evolution after the training; the first is random"
    )
    parents: int = Field(5, ge=1, description="number of best architectures so far that have children in a generation")
    search_episodes: int = Field(40, ge=2, description="episodes of held-out classes that score each architecture")


class SinglePath(Method):
    """Method that trains one uniformly drawn path per step, then evolves the paths with their inherited weights."""

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
                scores[architecture] = training.inherited_accuracy(architecture, o.search_episodes)
            yield {"supernet/best_inherited_accuracy": max(scores.values())}
        return top_architectures(training, scores, count)

    def _generation(self, parents: list[Architecture], seen: set[str]) -> list[Architecture]:
        """A generation of unseen architectures.

        Children of one parent (mutation) and of two (crossover) alternate. Random architectures fill up what ten tries
        per child did not yield; without parents, all are random.
        """
        space, rng, size = self.training.space, self.rng, self.options.population
        generation: dict[str, Architecture] = {}
        for i in range(10 * size * bool(parents)):
            one, other = (parents[int(rng.integers(len(parents)))] for _ in range(2))
            child = crossover(space, one, other, rng) if i % 2 else space.mutate(one, rng, tries=1)
            if child is not None and child.id not in seen:
                generation[child.id] = child
            if len(generation) == size:
                break
        while len(generation) < size and (fresh := unseen_architecture(space, {*seen, *generation}, rng)):
            generation[fresh.id] = fresh
        return list(generation.values())


def crossover(
    space: SearchSpace, one: Architecture, other: Architecture, rng: np.random.Generator
) -> Architecture | None:
    """Return a child of two architectures that takes every choice from one of them at random (uniform crossover).

    Choices without effect in both parents are drawn uniformly.

    Args:
        space: The space of the parents.
        one: The first parent.
        other: The second parent.
        rng: The source of randomness.

    Returns:
        The child, or None if it breaks a constraint of the space.
    """
    values = {}
    for name, choice in space.table.items():
        candidates = [parent[name] for parent in (one, other) if name in parent.values] or choice.values
        values[name] = candidates[int(rng.integers(len(candidates)))]
    child = space.canonical(values)
    return child if space.problem(child) is None else None


class SPOS(OneShot):
    """SPOS (Guo et al. 2020): trains a supernet along uniform random paths, then evolves them without training (NNI).

    The training is NNI's ``RandomOneShot``. The evolution, which NNI leaves to its users, is algorithm 1 of the paper.
    """

    Options = SPOSOptions
    name = "spos"
    method = SinglePath
