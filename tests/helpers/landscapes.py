"""Search spaces with a known best architecture, and searches over them without models, for tests of strategies."""

from itertools import pairwise

from nas_meta import WAIT, Architecture, Objective, Outcome, SearchContext, SearchSpace


class Landscape(SearchSpace):
    """Ten choices of four values each, scored by :func:`score`; only the architecture of all zeros is invalid."""

    def choices(self):
        return {f"c{i}": [0, 1, 2, 3] for i in range(10)}

    def build(self, architecture):
        raise AssertionError("a table, not a model")

    def problem(self, architecture):
        return "all zero" if not any(architecture.values.values()) else None


class Small(Landscape):
    """Six architectures, one of them invalid, which a budget can exhaust."""

    def choices(self):
        return {"a": [0, 1, 2], "b": [0, 1]}


def score(architecture: Architecture) -> float:
    """Return the true quality of an architecture: 1 for each correct value and 0.5 for each pair of correct neighbours.

    Args:
        architecture: An architecture of :class:`Landscape`.

    Returns:
        A number from 0 to 14.5; higher is better.
    """
    correct = [architecture[f"c{i}"] == (i * 7 + 3) % 4 for i in range(10)]
    return sum(correct) + 0.5 * sum(a and b for a, b in pairwise(correct))


def context(space=None, trials=100, seed=0, objectives=("accuracy",), workers=2):
    """Return the context of a strategy.

    Args:
        space: The search space; by default a :class:`Landscape`.
        trials: Budget of the search.
        seed: Seed of the search.
        objectives: Names of metrics; accuracy is maximised, every other metric minimised.
        workers: Trials at a time.

    Returns:
        The context.
    """
    directed = [Objective(m, "maximize" if m == "accuracy" else "minimize") for m in objectives]
    return SearchContext(space or Landscape(), directed, trials, workers, seed)


def run(strategy, trials, value=score, in_flight=1):
    """Run a search with a strategy, by asking for architectures and telling results.

    Args:
        strategy: The strategy; it is closed at the end.
        trials: Number of trials.
        value: Function from an architecture to its signed objectives: a number, a tuple of numbers, or ``None`` if the
            trial fails.
        in_flight: Trials that run at the same time; the oldest one finishes first.

    Returns:
        Pairs of architecture and value in the order of completion. There are fewer than ``trials`` pairs if the
        strategy stops proposing.
    """
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
