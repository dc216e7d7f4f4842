"""Regularised evolution: NNI's ``RegularizedEvolution``."""

from __future__ import annotations

import logging

from nni.nas.strategy import RegularizedEvolution
from pydantic import Field

from nas_meta import PluginOptions, SearchContext
from strategies.nni.adapter import NNIAdapter

# What a prefilter takes back has no metric, as is meant; NNI would warn of each.
logging.getLogger("nni.nas.strategy.evolution").addFilter(lambda row: "has no metric" not in str(row.msg))


class EvolutionOptions(PluginOptions):
    """Options of regularised evolution; what is left out follows from the budget and the space."""

    population: int | None = Field(None, ge=1, description="by default a fifth of the trials, 4 to 25")
    sample: int | None = Field(None, ge=1, description="tournament size; by default a third of the population")
    mutation: float | None = Field(
        None,
        gt=0,
        le=1,
        description="chance of each choice to be redrawn; by default 1 over the number of choices",
    )
    crossover: bool = Field(False, description="children of two parents")


class Evolution(NNIAdapter):
    """Regularised (ageing) evolution of Real et al. 2019: tournament, mutation, the oldest dies (NNI)."""

    Options = EvolutionOptions
    withdraws = True

    def __init__(self, context: SearchContext, options: EvolutionOptions | None = None):
        options = options or EvolutionOptions()
        population = options.population or min(25, max(4, context.trials // 5))
        choices = len(context.space.table)
        self._decided = EvolutionOptions(
            population=population,
            sample=min(population, options.sample or max(2, population // 3)),
            mutation=options.mutation or min(0.5, max(0.05, 1 / choices)),
            crossover=options.crossover,
        )
        # NNI takes parents from an empty population where more trials run than it holds.
        self.most_in_flight = population
        super().__init__(context, options)
        self.resolved = self._decided.model_dump()

    def make(self) -> RegularizedEvolution:
        return RegularizedEvolution(
            population_size=self._decided.population,
            sample_size=self._decided.sample,
            mutation_prob=self._decided.mutation,
            crossover=self._decided.crossover,
            dedup=False,
            seed=self.context.seed,
        )
