"""The checks of strategies: whole searches over landscapes without models."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from nas_meta.core.guard import first_line, plugin_call
from nas_meta.core.objectives import Objective
from nas_meta.errors import ConfigError
from nas_meta.space.architecture import Architecture
from nas_meta.strategy.protocol import Outcome, SearchContext, Strategy
from nas_meta.testing.checks import NotApplicable, expect
from nas_meta.testing.landscapes import ONE, TWO, Branches, Constant, Landscape, Two
from nas_meta.testing.rehearsal import Rehearsal

Make = Callable[[SearchContext], Strategy]
TRIALS, WORKERS = 20, 3
MOST_REPEATS = 0.1  # share of the proposals that may have been made before, where there are enough others


@dataclass(frozen=True)
class Subject:
    """The strategy under test.

    Attributes:
        make: Returns a new strategy for a context.
        seed: Seed of the searches.
    """

    make: Make
    seed: int = 0

    def search(
        self, landscape: Landscape, trials: int = TRIALS, *, workers: int = WORKERS, seed: int | None = None,
        objectives: Sequence[Objective] = ONE, fails: Callable[[int], bool] = lambda number: False,
        before_ask: Callable[[], None] = lambda: None,
    ) -> Rehearsal:  # fmt: skip
        """Begin a search with a new strategy; the caller closes the strategy.

        Args:
            landscape: The search space.
            trials: Budget of the search.
            workers: Trials at a time.
            seed: Seed of the search; by default the one of the subject.
            objectives: The objectives.
            fails: Whether a trial fails, by its number.
            before_ask: Called before every proposal.
        """
        context = SearchContext(landscape, objectives, trials, workers, self.seed if seed is None else seed)
        if getattr(self.make, "job", Strategy.job) is not Strategy.job:
            raise NotApplicable("a job comes before the first proposal; see the check of the job")
        with plugin_call(self.make, "__init__"):
            strategy = self.make(context)
        return Rehearsal(strategy, landscape, context, fails, before_ask)

    def finished(self, landscape: Landscape, trials: int = TRIALS, **settings: Any) -> Rehearsal:
        """Run a whole search and close its strategy.

        Args:
            landscape: The search space.
            trials: Budget of the search.
            settings: Further arguments of :meth:`search`.
        """
        rehearsal = self.search(landscape, trials, **settings)
        try:
            rehearsal.run(trials)
        finally:
            with plugin_call(rehearsal.strategy, "close"):
                rehearsal.strategy.close()
        return rehearsal


def check_proposals(subject: Subject) -> None:
    """Check that proposals keep to conditions and constraints.

    Args:
        subject: The strategy.

    Raises:
        CheckError: A proposal breaks a constraint.
        NasMetaError: A proposal is not an architecture of the space.
    """
    landscape = Branches()
    for architecture in subject.finished(landscape).architectures():
        problem = landscape.problem_of(architecture)
        expect(
            problem is None,
            f"it proposed {architecture}, which is not in the space: {problem}",
            "propose what space.sample(), space.mutate() or space.neighbours() return, or test space.problem_of()",
        )


def check_budget(subject: Subject) -> None:
    """Check that a search gets a proposal for every trial, and hardly any twice.

    Args:
        subject: The strategy.

    Raises:
        CheckError: The search ended early, or too many proposals were repeated.
    """
    rehearsal = subject.finished(Landscape())
    done, repeats = len(rehearsal.ended), rehearsal.repeats
    remember = "keep the ids of what was proposed, and draw again if an architecture is among them"
    expect(
        done == TRIALS or repeats < TRIALS,
        f"it repeated proposals {repeats} times in a row, and the search ended after {done} of {TRIALS} trials",
        remember,
    )
    expect(
        done == TRIALS,
        f"it had no proposal after {done} of {TRIALS} trials, although 4,096 architectures exist",
        "return None from ask() only if nothing is left to propose, and WAIT only while a trial is running",
    )
    expect(
        repeats <= MOST_REPEATS * TRIALS,
        f"it proposed {TRIALS} architectures and repeated {repeats} of them, although 4,096 exist",
        remember,
    )


def check_small_spaces(subject: Subject) -> None:
    """Check that a search whose budget exceeds the space tries every architecture, and then ends.

    Args:
        subject: The strategy.

    Raises:
        CheckError: Architectures were left out.
        NasMetaError: A proposal does not end.
    """
    for landscape in (Branches(), Two()):
        size = landscape.size()
        done = len(subject.finished(landscape).ended)
        expect(
            done == size,
            f"it tried {done} of the {size} architectures of a small space in {TRIALS} trials",
            "when your method has no new proposal, propose an architecture of space.walk() that was not tried yet",
        )


def check_failures(subject: Subject) -> None:
    """Check that a search continues when trials fail.

    Args:
        subject: The strategy.

    Raises:
        CheckError: The search ended early.
    """
    cases: dict[str, Callable[[int], bool]] = {
        "every third trial": lambda number: number % 3 == 0,
        "the first ten trials": lambda number: number <= 10,
        "every trial": lambda number: True,
    }
    for failing, fails in cases.items():
        done = len(subject.finished(Landscape(), fails=fails).ended)
        expect(
            done == TRIALS,
            f"the search ended after {done} of {TRIALS} trials when {failing} failed",
            "handle outcomes whose score and values are None in tell(), and propose another architecture",
        )


def check_equal_results(subject: Subject) -> None:
    """Check that a search continues when every architecture has the same accuracy.

    Args:
        subject: The strategy.

    Raises:
        CheckError: The search ended early.
    """
    done = len(subject.finished(Constant()).ended)
    expect(
        done == TRIALS,
        f"the search ended after {done} of {TRIALS} trials when all accuracies were equal",
        "do not divide by the spread of the scores, and propose something new when no neighbour is better",
    )


def check_two_objectives(subject: Subject) -> None:
    """Check that a search with two objectives runs, or that the strategy refuses them with a ConfigError.

    Args:
        subject: The strategy.

    Raises:
        CheckError: The search ended early.
        NotApplicable: The strategy refuses two objectives.
    """
    try:
        done = len(subject.finished(Landscape(), objectives=TWO).ended)
    except ConfigError as error:
        raise NotApplicable(f"it refuses two objectives: {error}") from error
    expect(
        done == TRIALS,
        f"the search ended after {done} of {TRIALS} trials with two objectives",
        "use outcome.score, the first objective, or outcome.values, all of them",
    )


def check_seeds(subject: Subject) -> None:
    """Check that another seed gives other proposals.

    Args:
        subject: The strategy.

    Raises:
        CheckError: Three seeds gave the same proposals.
    """
    seeds = (subject.seed, subject.seed + 1, subject.seed + 2)
    found = {tuple(a.id for a in subject.finished(Landscape(), seed=s).architectures()) for s in seeds}
    expect(
        len(found) > 1,
        "three seeds gave the same proposals",
        "draw random numbers from np.random.default_rng(context.seed)",
    )


def check_resuming(subject: Subject) -> None:
    """Check that a new strategy with the recorded history makes the same proposals as the first one.

    Between the calls, the global random generators are set to other states, as trials in the same process do.

    Args:
        subject: The strategy.

    Raises:
        CheckError: The resumed search differs.
    """
    cure = (
        "draw all random numbers from np.random.default_rng(context.seed), and let nothing depend on time, on the "
        "order of a set, or on other state than that of ask() and tell()"
    )
    made: list[Rehearsal] = []
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        for run in range(2):
            noise = itertools.count(10_000 * run)
            made.append(subject.search(Landscape(), fails=lambda n: n % 5 == 0, before_ask=partial(_disturb, noise)))
        first, resumed = made
        first.run(TRIALS // 2)
        try:
            resumed.replay(first)
        except Exception as error:
            expect(False, f"a resumed search fails: {first_line(error)}", cure)
        for rehearsal in made:
            rehearsal.run(TRIALS)
        pairs = zip(first.architectures(), resumed.architectures(), strict=False)
        number = next((i for i, (one, other) in enumerate(pairs, 1) if one != other), None)
        expect(number is None, f"proposal {number} differs when the search is resumed after trial {TRIALS // 2}", cure)
        expect(len(first.trials) == len(resumed.trials), "the resumed search has another number of trials", cure)
    finally:
        for rehearsal in made:
            rehearsal.strategy.close()
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])


def check_withdrawing(subject: Subject) -> None:
    """Check that withdrawn proposals get no outcome and may be made again.

    Args:
        subject: The strategy.

    Raises:
        CheckError: The strategy defines ``withdraw`` without setting ``withdraws``, or loses withdrawn architectures.
        NotApplicable: The strategy does not withdraw proposals.
    """
    landscape = Branches()
    rehearsal = subject.search(landscape, workers=1)
    strategy = rehearsal.strategy
    try:
        if not strategy.withdraws:
            _expect_undefined(strategy, "withdraw", "withdraws")
        drawn = [strategy.ask() for _ in range(3)]
        taken = [architecture for architecture in drawn if isinstance(architecture, Architecture)]
        for architecture in taken:
            with plugin_call(strategy, "withdraw"):
                strategy.withdraw(architecture)
        rehearsal.run(TRIALS)
        tried = set(rehearsal.architectures())
    finally:
        strategy.close()
    lost = [architecture for architecture in taken if architecture not in tried]
    expect(
        not lost,
        f"it never proposed {lost[0] if lost else ''} again after it was withdrawn",
        "let withdraw() remove the architecture from everything that ask() recorded",
    )


def check_learning(subject: Subject) -> None:
    """Check that results that the strategy did not propose are learned, also incomplete ones.

    Args:
        subject: The strategy.

    Raises:
        CheckError: The strategy defines ``learn`` without setting ``learns``, or the search ended early.
        NotApplicable: The strategy does not learn from other results.
    """
    landscape, rng = Landscape(), np.random.default_rng(subject.seed)
    rehearsal = subject.search(landscape)
    strategy = rehearsal.strategy
    try:
        if not strategy.learns:
            _expect_undefined(strategy, "learn", "learns")
        for i in range(6):
            architecture = landscape.sample(rng)
            metrics = {} if i == 2 else landscape.metrics(architecture)
            score = metrics.get("accuracy")
            values = None if score is None else (score,)
            with plugin_call(strategy, "learn"):
                strategy.learn(Outcome(architecture, "completed" if metrics else "failed", metrics, score, values))
        done = len(rehearsal.run(TRIALS))
    finally:
        strategy.close()
    expect(
        done == TRIALS,
        f"the search ended after {done} of {TRIALS} trials when it began with the results of another search",
        "accept architectures in learn() that ask() did not propose",
    )


CHECKS: dict[str, Callable[[Subject], None]] = {
    "proposals are architectures of the space": check_proposals,
    "the budget is used for new architectures": check_budget,
    "a small space is tried completely": check_small_spaces,
    "failed trials do not end the search": check_failures,
    "equal results do not end the search": check_equal_results,
    "two objectives are searched or refused": check_two_objectives,
    "another seed gives other proposals": check_seeds,
    "a resumed search continues as it would have": check_resuming,
    "withdrawn proposals may be made again": check_withdrawing,
    "results of other searches are learned": check_learning,
}


def _disturb(numbers: Iterator[int]) -> None:
    """Set the global random generators to a state that a strategy must not depend on."""
    number = next(numbers)
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def _expect_undefined(strategy: Strategy, method: str, attribute: str) -> None:
    """Skip the check of an optional method, unless it is defined without the attribute that switches it on."""
    own = vars(type(strategy))
    expect(
        method not in own or own.get(attribute),
        f"it defines {method}(), but {attribute} is False, so that a search never calls it",
        f"set {attribute} = True in the class",
    )
    raise NotApplicable(f"{attribute} is False")
