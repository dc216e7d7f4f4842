"""The checks of strategies: every strategy that ships passes them, and each finds the fault that it is for."""

from dataclasses import dataclass

import numpy as np
import pytest
from installed import TRIAL_STRATEGIES, marked, runs_trials_only, strategy_names

from nas_meta import WAIT, Architecture, Strategy
from nas_meta.errors import ConfigError
from nas_meta.evaluation.progress import JobResult, Progress
from nas_meta.testing import CheckError, StrategyTests, check_strategy
from nas_meta.testing import strategy_checks as checks
from nas_meta.testing.checks import NotApplicable, run_checks
from nas_meta.testing.comparison import compare_with_random
from nas_meta.testing.job_checks import check_job
from nas_meta.testing.landscapes import TWO, Landscape
from nas_meta.testing.strategies import CHECKS

FAST = [name for name in TRIAL_STRATEGIES if name not in ("rl", "auto", "surrogate", "random")]


@pytest.mark.parametrize("name", marked(TRIAL_STRATEGIES, FAST))
def test_the_strategies_that_ship_pass(name):
    assert [result for result in check_strategy(name) if result.problem] == []


class Sound(Strategy):
    """Random search without repeats, which the faulty strategies below derive from."""

    withdraws = True
    learns = True

    def __init__(self, context, options=None):
        super().__init__(context, options)
        self.rng = np.random.default_rng(context.seed)
        self.seen = set()

    def ask(self):
        for _ in range(100):
            architecture = self.context.space.sample(self.rng)
            if architecture.id not in self.seen:
                self.seen.add(architecture.id)
                return architecture
        left = [a for a in self.context.space.walk() if a.id not in self.seen]
        self.seen.update(a.id for a in left[:1])
        return left[0] if left else None

    def tell(self, outcome):
        self.last = outcome

    def learn(self, outcome):
        self.last = outcome

    def withdraw(self, architecture):
        self.seen.discard(architecture.id)


class TestSound(StrategyTests):
    def make_strategy(self, context):
        return Sound(context)


class IgnoresConstraints(Sound):
    def ask(self):
        if self.seen:
            return None
        self.seen.add("wide")
        wide = {"kind": "wide", "width": 3, "layers": 2, "bias": True}
        return Architecture(wide)


class NoArchitecture(Sound):
    def ask(self):
        return {"choice0": 1}


class Repeats(Sound):
    def ask(self):
        return self.context.space.sample(np.random.default_rng(len(self.seen)))


class RepeatsSome(Sound):
    calls = 0

    def ask(self):
        self.calls += 1
        if self.calls % 2:
            self.before = super().ask()
        return self.before


class EndsEarly(Sound):
    def ask(self):
        return super().ask() if len(self.seen) < 12 else None


class WaitsForNothing(Sound):
    def ask(self):
        return super().ask() if len(self.seen) < 12 else WAIT


class Endless(Sound):
    def ask(self):
        while (architecture := self.context.space.sample(self.rng)).id in self.seen:
            continue
        self.seen.add(architecture.id)
        return architecture


class Lazy(Sound):
    """Gives up when twenty random draws are known."""

    def ask(self):
        drawn = [self.context.space.sample(self.rng) for _ in range(3)]
        new = next((a for a in drawn if a.id not in self.seen), None)
        if new is not None:
            self.seen.add(new.id)
        return new


class NeedsScores(Sound):
    def tell(self, outcome):
        self.best = max(outcome.score, 0.0)


class DividesBySpread(Sound):
    def __init__(self, context, options=None):
        super().__init__(context, options)
        self.scores = []

    def tell(self, outcome):
        self.scores += [] if outcome.score is None else [outcome.score]
        if len(self.scores) > 3:
            1 / (max(self.scores) - min(self.scores))


class OneValue(Sound):
    def tell(self, outcome):
        if outcome.values is not None:
            (self.value,) = outcome.values


class Refuses(Sound):
    def __init__(self, context, options=None):
        super().__init__(context, options)
        if len(context.objectives) > 1:
            raise ConfigError("it needs one objective")


class Unseeded(Sound):
    def __init__(self, context, options=None):
        super().__init__(context, options)
        self.rng = np.random.default_rng(0)


class Entropy(Sound):
    def __init__(self, context, options=None):
        super().__init__(context, options)
        self.rng = np.random.default_rng()


class GlobalState(Sound):
    """Seeds numpy's global generator, which trials of the same process use, too."""

    def __init__(self, context, options=None):
        super().__init__(context, options)
        np.random.seed(context.seed)

    def ask(self):
        self.rng = np.random.default_rng(np.random.randint(2**31))
        return super().ask()


class ForgetsWithdrawals(Sound):
    def withdraw(self, architecture):
        self.last = architecture


class HidesWithdraw(Sound):
    withdraws = False

    def withdraw(self, architecture):
        self.seen.discard(architecture.id)


class LearnsOwnOnly(Sound):
    def learn(self, outcome):
        self.seen.remove(outcome.architecture.id)


class HidesLearn(Sound):
    learns = False

    def learn(self, outcome):
        self.last = outcome


@pytest.mark.parametrize(
    ("plugin", "check", "problem"),
    [
        (IgnoresConstraints, checks.check_proposals, "which is not in the space: it is too large; propose what"),
        (NoArchitecture, checks.check_proposals, r"ask\(\) returned a dict; expected an Architecture"),
        (Repeats, checks.check_budget, r"repeated proposals \d+ times in a row, .* after 1 of 20 trials; keep the ids"),
        (RepeatsSome, checks.check_budget, r"proposed 20 architectures and repeated \d+ of them"),
        (EndsEarly, checks.check_budget, "no proposal after 12 of 20 trials, although 4,096 architectures exist"),
        (WaitsForNothing, checks.check_budget, "no proposal after 12 of 20 trials"),
        (Endless, checks.check_small_spaces, "one proposal made 50,000 architectures without an end; return None"),
        (Lazy, checks.check_small_spaces, r"it tried \d+ of the 16 architectures"),
        (NeedsScores, checks.check_failures, r"NeedsScores.tell\(\) raised TypeError"),
        (DividesBySpread, checks.check_equal_results, r"DividesBySpread.tell\(\) raised ZeroDivisionError"),
        (OneValue, checks.check_two_objectives, r"OneValue.tell\(\) raised ValueError"),
        (Unseeded, checks.check_seeds, "three seeds gave the same proposals"),
        (Entropy, checks.check_resuming, r"does not repeat its proposal of trial 1; .*draw all random numbers from"),
        (GlobalState, checks.check_resuming, "a resumed search fails"),
        (ForgetsWithdrawals, checks.check_withdrawing, "again after it was withdrawn"),
        (HidesWithdraw, checks.check_withdrawing, r"it defines withdraw\(\), but withdraws is False"),
        (LearnsOwnOnly, checks.check_learning, r"LearnsOwnOnly.learn\(\) raised KeyError"),
        (HidesLearn, checks.check_learning, r"it defines learn\(\), but learns is False"),
    ],
)
def test_a_fault_is_found(plugin, check, problem):
    """The checks that the fault does not concern pass, so that a message points to its cause."""
    check(checks.Subject(Sound))
    with pytest.raises(Exception, match=problem):
        check(checks.Subject(plugin))


def test_a_strategy_may_refuse_two_objectives():
    with pytest.raises(NotApplicable, match="it refuses two objectives: it needs one objective"):
        checks.check_two_objectives(checks.Subject(Refuses))
    assert [row.measure for row in compare_with_random(Refuses, seeds=1)] == ["best accuracy of 60 trials"]


def test_all_checks_run_although_one_fails_and_say_where_the_plugin_failed():
    results = run_checks(checks.CHECKS, checks.Subject(NeedsScores))
    wrong = {result.check: result for result in results if result.problem}
    assert list(wrong) == ["failed trials do not end the search", "a resumed search continues as it would have"]
    line = NeedsScores.tell.__code__.co_firstlineno + 1
    assert wrong["failed trials do not end the search"].remedy == (
        f"look at line {line} of test_strategy_checks.py, in tell()"
    )
    assert len(results) == len(checks.CHECKS)


def test_a_strategy_that_cannot_be_loaded_is_one_problem(tmp_path):
    (tmp_path / "broken.py").write_text("raise ValueError('too early')")
    (result,) = check_strategy(f"{tmp_path}/broken.py:Broken")
    assert result.problem.endswith("cannot be imported: ValueError: too early")
    assert result.remedy == "look at line 1 of broken.py, in <module>()"


def test_a_failed_check_is_a_failed_test():
    class Tests(StrategyTests):
        def make_strategy(self, context):
            return EndsEarly(context)

    with pytest.raises(CheckError, match="no proposal after 12 of 20 trials"):
        Tests().test_the_budget_is_used_for_new_architectures()


def test_the_best_architecture_of_a_landscape_is_known():
    landscape = Landscape()
    accuracies = [landscape.accuracy(a) for a in landscape.walk()]
    assert len(accuracies) == 4096 and max(accuracies) == 1 and accuracies.count(1) == 1
    everything = [landscape.metrics(a) for a in landscape.walk()]
    assert landscape.share_of_front(everything) == pytest.approx(1)
    assert landscape.share_of_front(everything[:1]) < 0.3 and landscape.share_of_front([]) == 0
    assert [objective.metric for objective in TWO] == ["accuracy", "params"]


def test_the_comparison_tells_good_from_random():
    good = compare_with_random("tpe", seeds=2, trials=40)
    random = compare_with_random(Sound, seeds=12, trials=40)
    assert [row.measure for row in good] == ["best accuracy of 40 trials", "hypervolume of 40 trials"]
    assert good[0].strategy_mean > good[0].random_mean + 0.15
    for row in random:
        assert row.strategy_mean == pytest.approx(row.random_mean, abs=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("name", strategy_names(lambda strategy: not runs_trials_only(strategy)))
def test_the_supernet_strategies_that_ship_pass(name):
    *others, job = check_strategy(name)
    assert {result.skipped for result in others} == {"a job comes before the first proposal; see the check of the job"}
    assert (job.problem, job.skipped) == (None, None)


@dataclass
class Count:
    """A job of four steps, with a checkpoint after two."""

    proposals: object = 2
    start_over: bool = False
    steps: int = 4

    def __call__(self, evaluation, checkpoint=None):
        total = 0 if checkpoint is None or self.start_over else int(checkpoint[0])
        for step in range(self.steps if checkpoint is None else self.steps - 2):
            total += 1
            yield Progress(step + 1, {}, np.array([total]) if total == 2 else None)
        return JobResult({"total": total, "proposals": self.proposals})


class WithJob(Sound):
    sound = Count()

    def job(self):
        return self.sound

    def receive(self, findings, weights):
        walked = list(self.context.space.walk())
        self.rest = walked[: findings["proposals"]] if findings["proposals"] > 0 else walked[:1] * 2

    def ask(self):
        return self.rest.pop() if self.rest else None


def test_a_job_is_checked():
    check_job(checks.Subject(WithJob))
    with pytest.raises(NotApplicable, match="it has no job"):
        check_job(checks.Subject(Sound))


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (
            Count(start_over=True),
            "the job has other findings when it resumes from its first checkpoint; put everything",
        ),
        (Count(proposals=0), "after its job it proposed 2 architectures, 1 of them different"),
        (Count(proposals={1}), "the findings are not JSON: TypeError"),
    ],
)
def test_a_faulty_job_is_found(job, problem):
    class Faulty(WithJob):
        sound = job

    with pytest.raises(CheckError, match=problem):
        check_job(checks.Subject(Faulty))


def test_every_check_is_a_pytest_method():
    names = [name for name in vars(StrategyTests) if name.startswith("test_")]
    assert len(names) == len(CHECKS)
