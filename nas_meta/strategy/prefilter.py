"""Prefilter: of several proposals of a strategy, try only the one with the best zero-cost proxy.

The strategy withdraws the other proposals as if it had never made them. Invariant: proposals remain a function of the
seed and of the results, so that resuming can replay them. A score could differ in its last digits on another machine;
every score is therefore written into the run directory, and a resumed search reads it there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from nas_meta.core.guard import plugin_call
from nas_meta.errors import NasMetaError
from nas_meta.evaluation.trial import Evaluation
from nas_meta.space.architecture import Architecture
from nas_meta.strategy.protocol import Outcome, Strategy, Wait

FILE = "scores.jsonl"


class ProxyScores:
    """A zero-cost proxy as a function of the architecture, computed once per architecture and run.

    Args:
        name: Name of the proxy, one of :data:`nas_meta.evaluation.proxies.PROXIES`.
        evaluation: Builds the evaluation whose models are scored; called for the first score that is not cached.
        seed: Seed of initial weights and episodes.
        file: Cache of scores in the run directory, one JSON line per architecture.
    """

    def __init__(self, name: str, evaluation: Callable[[], Evaluation], seed: int, file: Path):
        self.name, self.seed, self.file = name, seed, file
        self._make_evaluation = evaluation
        self._cached = dict(read_scores(file, name))

    @cached_property
    def _evaluation(self) -> Evaluation:
        return self._make_evaluation()

    def __call__(self, architecture: Architecture) -> float:
        """Return the score of an architecture.

        Args:
            architecture: Architecture of the search.

        Returns:
            The score, higher is better; minus infinity if the model cannot be built or scored.
        """
        if architecture.id not in self._cached:
            value = self._compute(architecture)
            with open(self.file, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"architecture": architecture.id, self.name: value}) + "\n")
            self._cached[architecture.id] = value
        return self._cached[architecture.id]

    def _compute(self, architecture: Architecture) -> float:
        from nas_meta.evaluation.proxies.scoring import proxy_scores

        try:
            with plugin_call(self._evaluation.space, "build"):
                return proxy_scores(self._evaluation, architecture, [self.name], self.seed)[self.name]
        except NasMetaError:
            return -math.inf


def read_scores(file: Path, name: str) -> Mapping[str, float]:
    """Read cached scores; the unfinished last line of an interrupted search is removed from the file.

    Args:
        file: Cache that :class:`ProxyScores` writes; it need not exist.
        name: Name of the proxy; lines of other proxies are skipped.

    Returns:
        Scores by the id of the architecture.
    """
    scores: dict[str, float] = {}
    if not file.is_file():
        return scores
    text = file.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        file.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    for line in text.splitlines():
        try:
            row = json.loads(line)
            scores[str(row["architecture"])] = float(row[name])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return scores


class Prefilter(Strategy):
    """A strategy that forwards only the best of several proposals of another strategy.

    Args:
        strategy: The strategy that proposes; it must be able to withdraw proposals.
        score: Score of an architecture, higher is better; of equal scores the earlier proposal wins.
        of: Number of proposals per trial.
    """

    def __init__(self, strategy: Strategy, score: Callable[[Architecture], float], of: int):
        super().__init__(strategy.context, strategy.options)
        self.strategy, self.score, self.of = strategy, score, of
        self.resolved, self.learns = strategy.resolved, strategy.learns

    def ask(self) -> Architecture | Wait | None:
        best = self.strategy.ask()
        for _ in range(self.of - 1):
            # A strategy that must wait for results makes no further proposal: the best so far is taken.
            if not isinstance(best, Architecture) or not isinstance(other := self.strategy.ask(), Architecture):
                break
            if other == best:
                continue
            best, worse = (other, best) if self.score(other) > self.score(best) else (best, other)
            self.strategy.withdraw(worse)
        return best

    def tell(self, outcome: Outcome) -> None:
        self.strategy.tell(outcome)

    def learn(self, outcome: Outcome) -> None:
        self.strategy.learn(outcome)

    def close(self) -> None:
        self.strategy.close()
