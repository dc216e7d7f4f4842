"""Of several proposals of a strategy the one with the best zero-cost score is tried; it takes the others back.

The strategy stays a function of its seed and of what it is asked and told, as long as scores do not change: so every
one is kept in the run's directory, and a resumed search reads what another machine might compute with other last
digits.
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
    """The score of every architecture that was asked for, computed once for a run.

    Args:
        evaluation: makes the evaluation whose models are scored, when the first of them is.
        file: where scores are kept, a line each.
    """

    def __init__(self, name: str, evaluation: Callable[[], Evaluation], seed: int, file: Path):
        self.name, self.seed, self.file = name, seed, file
        self._make = evaluation
        self._known = dict(read_scores(file, name))

    @cached_property
    def _evaluation(self) -> Evaluation:
        return self._make()

    def __call__(self, architecture: Architecture) -> float:
        """The more, the better; minus infinity where it cannot be told, as of a model that cannot be built."""
        if architecture.id not in self._known:
            value = self._scored(architecture)
            with open(self.file, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"architecture": architecture.id, self.name: value}) + "\n")
            self._known[architecture.id] = value
        return self._known[architecture.id]

    def _scored(self, architecture: Architecture) -> float:
        from nas_meta.evaluation.proxies.scoring import proxy_scores

        try:
            with plugin_call(self._evaluation.space, "build"):
                return proxy_scores(self._evaluation, architecture, [self.name], self.seed)[self.name]
        except NasMetaError:
            return -math.inf


def read_scores(file: Path, name: str) -> Mapping[str, float]:
    """What is kept in a file, by the id of an architecture; a line that was written half is left out."""
    found: dict[str, float] = {}
    if not file.is_file():
        return found
    text = file.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        file.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    for line in text.splitlines():
        try:
            row = json.loads(line)
            found[str(row["architecture"])] = float(row[name])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


class Prefilter(Strategy):
    """A strategy whose proposals are the best by score of ``of`` that the strategy inside makes."""

    def __init__(self, inside: Strategy, score: Callable[[Architecture], float], of: int):
        super().__init__(inside.context, inside.options)
        self.inside, self.score, self.of = inside, score, of
        self.resolved = inside.resolved

    def ask(self) -> Architecture | Wait | None:
        best = self.inside.ask()
        for _ in range(self.of - 1):
            # One that must wait for results before it says more is taken by what it has said.
            if not isinstance(best, Architecture) or not isinstance(other := self.inside.ask(), Architecture):
                break
            if other == best:
                continue
            best, worse = (other, best) if self.score(other) > self.score(best) else (best, other)
            self.inside.withdraw(worse)
        return best

    def tell(self, outcome: Outcome) -> None:
        self.inside.tell(outcome)

    def close(self) -> None:
        self.inside.close()
