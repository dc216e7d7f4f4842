"""Picks the strategy for a search by its budget, its space and its objectives."""

from __future__ import annotations

from nas_meta import Architecture, Outcome, PluginOptions, SearchContext, Strategy
from strategies.nni.evolution import Evolution
from strategies.nni.grid_search import Grid
from strategies.optuna.nsga2 import NSGA2
from strategies.surrogate.surrogate import Surrogate

MANY = 3000  # trials from which on fitting a predictor to all of them would take too long; chosen, not measured


def pick(context: SearchContext) -> type[Strategy]:
    """Everything where the budget covers the space; a population for very many trials; else the surrogate."""
    if context.space.size() <= context.trials:
        return Grid
    if context.trials >= MANY:
        return Evolution if len(context.objectives) == 1 else NSGA2
    return Surrogate


class Auto(Strategy):
    """The strategy that did best on tables where the truth is known, for this budget, space and objectives."""

    withdraws = True  # where what is picked does

    def __init__(self, context: SearchContext, options: PluginOptions | None = None):
        super().__init__(context, options)
        self.picked = pick(context)(context)
        self.withdraws = self.picked.withdraws
        self.resolved = {"name": type(self.picked).__name__.lower(), **self.picked.resolved}

    def ask(self) -> Architecture | None:
        return self.picked.ask()

    def tell(self, outcome: Outcome) -> None:
        self.picked.tell(outcome)

    def withdraw(self, architecture: Architecture) -> None:
        self.picked.withdraw(architecture)

    def close(self) -> None:
        self.picked.close()
