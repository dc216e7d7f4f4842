"""Picks the strategy for a search by its budget, its space and its objectives."""

from __future__ import annotations

from nas_meta import Architecture, Outcome, PluginOptions, SearchContext, Strategy
from strategies.nni.evolution import Evolution
from strategies.nni.grid_search import Grid
from strategies.optuna.nsga2 import NSGA2
from strategies.surrogate.surrogate import Surrogate

LARGE_BUDGET = 3000  # trials from which refitting a predictor to all results takes too long; chosen, not measured


def pick(context: SearchContext) -> type[Strategy]:
    """Return the strategy class for a search.

    Args:
        context: The search. Its space, objectives and number of trials decide.

    Returns:
        ``Grid`` if the budget covers the whole space; for very large budgets ``Evolution`` (one objective) or ``NSGA2``
        (several); otherwise ``Surrogate``.
    """
    if context.space.size() <= context.trials:
        return Grid
    if context.trials >= LARGE_BUDGET:
        return Evolution if len(context.objectives) == 1 else NSGA2
    return Surrogate


class Auto(Strategy):
    """The strategy that does best on tables with known optima, given the budget, space and objectives."""

    learns = True
    withdraws = True  # an instance takes the value of the strategy that it picks

    def __init__(self, context: SearchContext, options: PluginOptions | None = None):
        super().__init__(context, options)
        self.picked = pick(context)(context)
        self.withdraws = self.picked.withdraws
        self.resolved = {"name": type(self.picked).__name__.lower(), **self.picked.resolved}

    def ask(self) -> Architecture | None:
        return self.picked.ask()

    def tell(self, outcome: Outcome) -> None:
        self.picked.tell(outcome)

    def learn(self, outcome: Outcome) -> None:
        self.picked.learn(outcome)

    def withdraw(self, architecture: Architecture) -> None:
        self.picked.withdraw(architecture)

    def close(self) -> None:
        self.picked.close()
