"""Conformance tests of strategies, as a pytest class and by name."""

from __future__ import annotations

from collections.abc import Callable

from nas_meta.strategy.protocol import SearchContext, Strategy
from nas_meta.testing import strategy_checks as checks
from nas_meta.testing.checks import NotApplicable, Result, check_plugin
from nas_meta.testing.job_checks import check_job

CHECKS = {**checks.CHECKS, "its job resumes and leads to proposals": check_job}
"""All checks of a strategy, by what holds if they pass."""


class StrategyTests:
    """Conformance tests of a strategy, as a pytest class.

    Subclass it and define :meth:`make_strategy`; pytest then collects every test below for your strategy. Searches run
    over landscapes without models, in seconds.
    """

    def make_strategy(self, context: SearchContext) -> Strategy:
        """Return a new instance of the strategy under test.

        Subclasses must override this method.

        Args:
            context: The context, to pass on to the strategy.
        """
        raise AssertionError(
            f"{type(self).__name__} does not define make_strategy(context); expected a method that returns a strategy"
        )

    def test_proposals_are_architectures_of_the_space(self) -> None:
        """Proposals keep to conditions and constraints."""
        _skipping(checks.check_proposals, self._subject())

    def test_the_budget_is_used_for_new_architectures(self) -> None:
        """Every trial of the budget gets a proposal, and hardly any is made twice."""
        _skipping(checks.check_budget, self._subject())

    def test_a_small_space_is_tried_completely(self) -> None:
        """A search with more trials than architectures tries all of them, and then ends."""
        _skipping(checks.check_small_spaces, self._subject())

    def test_failed_trials_do_not_end_the_search(self) -> None:
        """The search continues when trials fail: some of them, the first ones or all."""
        _skipping(checks.check_failures, self._subject())

    def test_equal_results_do_not_end_the_search(self) -> None:
        """The search continues when every architecture has the same accuracy."""
        _skipping(checks.check_equal_results, self._subject())

    def test_two_objectives_are_searched_or_refused(self) -> None:
        """A search with two objectives runs, or the strategy refuses them with a ConfigError."""
        _skipping(checks.check_two_objectives, self._subject())

    def test_seeds_matter(self) -> None:
        """Another seed gives other proposals. Override this test if the strategy makes no random decision."""
        _skipping(checks.check_seeds, self._subject())

    def test_a_resumed_search_continues_as_it_would_have(self) -> None:
        """A new strategy that gets the recorded history makes the same proposals as the first one."""
        _skipping(checks.check_resuming, self._subject())

    def test_proposals_can_be_withdrawn(self) -> None:
        """If ``withdraws`` is set: proposals that are withdrawn get no outcome and may be made again."""
        _skipping(checks.check_withdrawing, self._subject())

    def test_foreign_results_are_learned(self) -> None:
        """If ``learns`` is set: results that the strategy did not propose are learned, also incomplete ones."""
        _skipping(checks.check_learning, self._subject())

    def test_its_job_resumes_and_leads_to_proposals(self) -> None:
        """If the strategy has a job: it resumes from its checkpoint, and its findings give proposals."""
        _skipping(check_job, self._subject())

    def _subject(self) -> checks.Subject:
        return checks.Subject(self.make_strategy)


def check_strategy(name: str, seed: int = 0) -> list[Result]:
    """Run every conformance check on a strategy.

    Args:
        name: An installed name, such as ``evolution``, or ``path/to/file.py:Name``. The strategy is made with its
            default options.
        seed: Seed of the searches.

    Returns:
        One result per check. If the strategy cannot be loaded, the only result has the reason.
    """
    return check_plugin("strategies", name, CHECKS, lambda plugin: checks.Subject(plugin, seed))


def _skipping(check: Callable[[checks.Subject], None], subject: checks.Subject) -> None:
    """Run a check as a pytest test, which is skipped if it does not apply to the strategy."""
    try:
        check(subject)
    except NotApplicable as reason:
        import pytest

        pytest.skip(str(reason))
