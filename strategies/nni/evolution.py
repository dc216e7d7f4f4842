"""Regularised evolution: NNI's ``RegularizedEvolution``."""

from __future__ import annotations

import logging

from nni.nas.strategy import RegularizedEvolution
from pydantic import Field

from nas_meta import PluginOptions, SearchContext
from strategies.nni.adapter import NNIAdapter

# A proposal that a prefilter withdraws ends without a metric, on purpose. NNI would log a warning for each.
logging.getLogger("nni.nas.strategy.evolution").addFilter(lambda row: "has no metric" not in str(row.msg))


class EvolutionOptions(PluginOptions):
    """Options of ``evolution``; defaults of None are derived from the budget and the space."""

    population: int | None = Field(
        None, ge=1, description="size of the population; by default a fifth of the trials, 4 to 25"
    )
    sample: int | None = Field(
        None,
        ge=1,
        description="size of a tournament, whose best member is the parent; by default a third of the population",
    )
    mutation: float | None = Field(
        None,
        gt=0,
        le=1,
        description="probability that a choice is redrawn; by default 1 over the number of choices, 0.05 to 0.5",
    )
    crossover: bool = Field(False, description="whether a child combines the choices of two parents before it mutates")


class Evolution(NNIAdapter):
    """Regularised evolution (Real et al. 2019): mutates tournament winners and discards the oldest (NNI)."""

    Options = EvolutionOptions
    withdraws = True

    def __init__(self, context: SearchContext, options: EvolutionOptions | None = None):
        options = options or EvolutionOptions()
        population = options.population or min(25, max(4, context.trials // 5))
        choices = len(context.space.table)
        self._settings = EvolutionOptions(
            population=population,
            sample=min(population, options.sample or max(2, population // 3)),
            mutation=options.mutation or min(0.5, max(0.05, 1 / choices)),
            crossover=options.crossover,
        )
        # With more unfinished trials than its size, the population may be empty when NNI draws a parent from it.
        self.max_in_flight = population
        super().__init__(context, options)
        self.resolved = self._settings.model_dump()

    def make(self) -> RegularizedEvolution:
        return RegularizedEvolution(
            population_size=self._settings.population,
            sample_size=self._settings.sample,
            mutation_prob=self._settings.mutation,
            crossover=self._settings.crossover,
            dedup=False,
            seed=self.context.seed,
        )
