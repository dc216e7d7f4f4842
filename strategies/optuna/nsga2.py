"""NSGA-II, with optuna's ``NSGAIISampler``."""

from __future__ import annotations

from optuna.samplers import NSGAIISampler
from pydantic import Field

from nas_meta import PluginOptions, SearchContext
from strategies.optuna.adapter import OptunaAdapter


class NSGA2Options(PluginOptions):
    """Options of ``nsga2``; defaults of None are derived from the budget."""

    population: int | None = Field(
        None, ge=2, description="size of the population; by default a fifteenth of the trials, 8 to 50"
    )
    mutation: float | None = Field(
        None, gt=0, le=1, description="probability that a choice is redrawn; by default 1 over the number of choices"
    )
    crossover: float = Field(0.9, ge=0, le=1, description="probability that a child has two parents, not one")


class NSGA2(OptunaAdapter):
    """NSGA-II (Deb et al. 2002): selects by non-dominated rank and crowding, then crosses and mutates (optuna)."""

    Options = NSGA2Options
    learns = False  # the sampler selects parents from its own generations only
    objectives = None

    def __init__(self, context: SearchContext, options: NSGA2Options | None = None):
        options = options or NSGA2Options()
        self.population = options.population or min(50, max(8, context.trials // 15))
        super().__init__(context, options)
        self.resolved = {"population": self.population}

    def make(self) -> NSGAIISampler:
        return NSGAIISampler(
            population_size=self.population,
            mutation_prob=self.options.mutation,
            crossover_prob=self.options.crossover,
            seed=self.context.seed,
        )
