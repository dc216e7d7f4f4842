"""Spaces whose best architecture is known, and a search over them without models, for the tests of strategies."""

from itertools import pairwise

from nas_meta import WAIT, Architecture, Objective, Outcome, SearchContext, SearchSpace


class Landscape(SearchSpace):
    """Ten choices of four; the score is the number of right ones, and neighbours help each other."""

    def choices(self):
        return {f"c{i}": [0, 1, 2, 3] for i in range(10)}

    def build(self, architecture):
        raise AssertionError("a table, not a model")

    def problem(self, architecture):
        return "all zero" if not any(architecture.values.values()) else None


class Small(Landscape):
    def choices(self):
        return {"a": [0, 1, 2], "b": [0, 1]}


def score(architecture: Architecture) -> float:
    right = [architecture[f"c{i}"] == (i * 7 + 3) % 4 for i in range(10)]
    return sum(right) + 0.5 * sum(a and b for a, b in pairwise(right))


def context(space=None, trials=100, seed=0, objectives=("accuracy",), workers=2):
    directed = [Objective(m, "maximize" if m == "accuracy" else "minimize") for m in objectives]
    return SearchContext(space or Landscape(), directed, trials, workers, seed)


def run(strategy, trials, value=score, in_flight=1):
    """Asks and tells; ``value`` gives signed objectives: a number, a tuple, or None where the trial fails."""
    running, done = [], []
    try:
        while len(done) < trials:
            proposal = strategy.ask() if len(running) < in_flight and len(running) + len(done) < trials else WAIT
            if isinstance(proposal, Architecture):
                running.append(proposal)
                continue
            if not running:
                break
            architecture = running.pop(0)
            result = value(architecture)
            values = result if isinstance(result, tuple) or result is None else (result,)
            status = "completed" if values else "failed"
            strategy.tell(Outcome(architecture, status, {}, values and values[0], values))
            done.append((architecture, result))
    finally:
        strategy.close()
    return done
